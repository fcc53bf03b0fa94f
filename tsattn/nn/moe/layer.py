"""The mixture of experts as a feed-forward."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.auxiliary import Fed
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.moe.balance import SelectionBias, balance_loss, over_ranks, router_z_loss
from tsattn.nn.moe.capacity import drop_beyond
from tsattn.nn.moe.dispatch import apply_experts, as_computing, count
from tsattn.nn.moe.experts import Experts, FeedForwardExperts
from tsattn.nn.moe.gates import LinearGate
from tsattn.nn.moe.light_experts import ConstantExperts, CopyExperts, MixedExperts, ZeroExperts
from tsattn.nn.moe.selection import Normalisation, as_normalisation, check_top_k, select
from tsattn.ops import ValueActivation
from tsattn.tensors import Chosen, ExpertCounts, Logits, Weights


class Routing(NamedTuple):
    """Who worked for which token, and why; N tokens in the order of the input.

    Attributes:
        logits_NE: of the gate.
        probabilities_NE: the gate's distribution over all experts.
        experts_NK: chosen experts, best first.
        weights_NK: their weights, 0 for dropped slots.
        counts_E: slots of each expert, dropped ones included.
        dropped: number of slots dropped for want of capacity, a scalar.
    """

    logits_NE: Logits
    probabilities_NE: Logits
    experts_NK: Chosen
    weights_NK: Weights
    counts_E: ExpertCounts
    dropped: Tensor


class MoEFeedForward(nn.Module):
    """``y = shared(x) + sum over the chosen experts of weight_i expert_i(x)``, for every token.

    ``forward`` returns a `Fed`: the tokens, the auxiliary losses of a training step before their
    weights (``balance``, ``router_z``; those with weight zero are left out), and the `Routing`,
    which a forward hook can read. Nothing is kept between calls but the load that a selection bias
    counts.

    Args:
        d_model: width D of the tokens.
        gate: ``gate(x_ND) -> logits_NE``, see `tsattn.nn.moe.gates`.
        experts: the experts, see `tsattn.nn.moe.experts`.
        top_k: experts of each token; ``None`` means all of them.
        normalisation: how logits become weights, see `tsattn.nn.moe.select`; ``None`` means as the
            gate says, which for most is ``topk_softmax``.
        shared: a feed-forward that every token passes beside the experts.
        balance: weight of the load-balance loss.
        router_z: weight of the z-loss of the logits.
        bias_step: step of the selection bias, see `SelectionBias`; 0 means none.
        capacity: at most ``capacity * N K / E`` slots for each expert in training, the rest is
            dropped and counted; ``None`` drops nothing.
        computing: who computes the experts, see `Computing`.

    Raises:
        ValueError: more experts chosen than there are, gate and experts of different sizes, or an
            unknown name.

    Source: active-attention paper, definition 2.1; CompeteSMoE paper, section 2.1.

    Example:
        >>> from tsattn.nn.moe.gates import QuadraticMonomialGate
        >>> gate, experts = QuadraticMonomialGate(16, 4), FeedForwardExperts(16, 4, 32)
        >>> layer = MoEFeedForward(16, gate, experts, top_k=2)
        >>> layer(torch.randn(8, 42, 16)).output.shape
        torch.Size([8, 42, 16])
    """

    def __init__(
        self,
        d_model: int,
        gate: nn.Module,
        experts: Experts,
        top_k: int | None = 2,
        *,
        normalisation: Normalisation | None = None,
        shared: nn.Module | None = None,
        balance: float = 0.01,
        router_z: float = 0.0,
        bias_step: float = 0.0,
        capacity: float | None = None,
        computing: str = "auto",
    ) -> None:
        super().__init__()
        self.num_experts = experts.num_experts
        self.top_k = self.num_experts if top_k is None else top_k
        check_top_k(self.top_k, self.num_experts)
        _check_sizes(d_model, gate, experts)
        for name, value in (("balance", balance), ("router_z", router_z), ("bias_step", bias_step)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if capacity is not None and not capacity > 0:
            raise ValueError(f"capacity must be positive, or None for no limit, got {capacity}")
        self.gate = gate
        self.experts = experts
        self.shared = shared
        own = getattr(gate, "normalisation", "topk_softmax")
        self.normalisation: Normalisation = as_normalisation(
            own if normalisation is None else normalisation
        )
        if self.normalisation == "dense" and self.top_k < self.num_experts:
            raise ValueError(
                f"normalisation 'dense' chooses all {self.num_experts} experts, got top_k={top_k}; "
                "set top_k to None, or take topk_softmax"
            )
        self.capacity = capacity
        self.computing = as_computing(computing)
        weights = {"balance": balance, "router_z": router_z}
        self.loss_weights = {name: weight for name, weight in weights.items() if weight}
        self.selection_bias = SelectionBias(self.num_experts, bias_step) if bias_step else None

    def forward(self, x: Tensor) -> Fed:
        """Map tokens [..., D] to tokens of the same shape."""
        x_ND = x.flatten(0, -2)
        routing = self.route(x_ND)
        output = self.mix(x_ND, routing)
        losses = self.losses(routing) if self.training else {}
        return Fed(output.view(x.shape), losses, routing)

    def route(self, x_ND: Tensor) -> Routing:
        """Choose the experts of every token."""
        logits = self.gate(x_ND)
        if logits.shape != (len(x_ND), self.num_experts):
            raise ValueError(
                f"{type(self.gate).__name__} must return logits of [tokens {len(x_ND)}, experts "
                f"{self.num_experts}], got {list(logits.shape)}"
            )
        bias = self.selection_bias
        everyone = getattr(self.gate, "dense", False)
        chosen, weights, probabilities = select(
            logits,
            self.num_experts if everyone else self.top_k,
            self.normalisation,
            bias.bias_E if bias else None,
        )
        counts = count(chosen, self.num_experts)
        if bias:
            bias.observe(counts)
        dropped = counts.new_zeros(())
        if self.capacity is not None and self.training:
            weights, dropped = drop_beyond(chosen, weights, self.num_experts, self.capacity)
        return Routing(logits, probabilities, chosen, weights, counts, dropped)

    def mix(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """Return the weighted outputs of the chosen experts, and of the shared one."""
        chosen = (routing.experts_NK, routing.weights_NK)
        output = apply_experts(self.experts, x_ND, *chosen, self.computing)
        return output if self.shared is None else output + self.shared(x_ND)

    def losses(self, routing: Routing) -> dict[str, Tensor]:
        """Return the auxiliary losses of a training step by name, before their weights."""
        losses: dict[str, Tensor] = {}
        if "balance" in self.loss_weights:
            load = over_ranks(routing.counts_E)
            losses["balance"] = balance_loss(routing.probabilities_NE, load)
        if "router_z" in self.loss_weights:
            losses["router_z"] = router_z_loss(routing.logits_NE)
        return losses

    def extra_repr(self) -> str:
        """Name how experts are chosen."""
        return f"top_k={self.top_k}, normalisation={self.normalisation!r}"


class MoE(MoEFeedForward):
    """`MoEFeedForward` built from sizes: what recipes and the command call ``MoE``.

    A network builds one for every layer: ``feedforward(d_model)``. What it uses as ``d_ff`` and
    ``dropout`` in its dense feed-forwards is handed on, so that by default the active experts of a
    token have the hidden units of the dense feed-forward between them.

    Args:
        d_model: width D of the tokens.
        gate: builds the gate from ``d_model`` and ``num_experts``; a gate's class is enough.
        num_experts: number E of experts, the last ones of which may be light.
        top_k: experts of each token; ``None`` means all of them.
        d_ff: hidden units of an expert; ``None`` means ``active_d_ff`` divided by the number of
            experts that a token uses, shared ones included.
        activation: of the experts' hidden units.
        dropout: of the experts' hidden units; ``None`` means as in the network, alone 0.
        experts: builds other experts from ``d_model`` and their number; then ``d_ff``,
            ``activation`` and ``dropout`` are those of the shared experts alone.
        shared_experts: feed-forwards that every token passes.
        zero_experts: how many of the experts are zeros.
        copy_experts: how many of the experts copy their token.
        constant_experts: how many of the experts are one learned vector.
        normalisation: as in `MoEFeedForward`.
        balance: as in `MoEFeedForward`.
        router_z: as in `MoEFeedForward`.
        bias_step: as in `MoEFeedForward`.
        capacity: as in `MoEFeedForward`.
        computing: as in `MoEFeedForward`.
        active_d_ff: hidden units that a token uses; networks give their ``d_ff``. ``None`` means
            ``4 d_model``.

    Raises:
        ValueError: as in `MoEFeedForward`; more light experts than there are experts, or so few
            hidden units that an expert would get none.

    Source: active-attention paper, appendix F.4 (equal active parameters).

    Example:
        >>> MoE(16, num_experts=8, top_k=2, active_d_ff=128).experts.d_ff
        64
    """

    def __init__(
        self,
        d_model: int,
        gate: Callable[[int, int], nn.Module] = LinearGate,
        *,
        num_experts: int = 8,
        top_k: int | None = 2,
        d_ff: int | None = None,
        activation: ValueActivation = "gelu",
        dropout: float | None = None,
        experts: Callable[[int, int], nn.Module] | None = None,
        shared_experts: int = 0,
        zero_experts: int = 0,
        copy_experts: int = 0,
        constant_experts: int = 0,
        normalisation: Normalisation | None = None,
        balance: float = 0.01,
        router_z: float = 0.0,
        bias_step: float = 0.0,
        capacity: float | None = None,
        computing: str = "auto",
        active_d_ff: int | None = None,
    ) -> None:
        check_top_k(num_experts if top_k is None else top_k, num_experts)
        used = (num_experts if top_k is None else top_k) + shared_experts
        d_ff = _share(4 * d_model if active_d_ff is None else active_d_ff, used, d_ff)
        light = {
            ZeroExperts: zero_experts,
            CopyExperts: copy_experts,
            ConstantExperts: constant_experts,
        }
        working = num_experts - sum(light.values())
        if working < 0 or min(shared_experts, *light.values()) < 0:
            raise ValueError(
                f"zero, copy and constant experts are counted among num_experts={num_experts}, got "
                f"{zero_experts} + {copy_experts} + {constant_experts} and {shared_experts} shared"
            )
        rate = 0.0 if dropout is None else dropout

        def feedforwards(d_model: int, num_experts: int) -> nn.Module:
            return FeedForwardExperts(
                d_model, num_experts, d_ff, activation=activation, dropout=rate
            )

        parts = [(experts or feedforwards)(d_model, working)] if working else []
        parts += [kind(d_model, number) for kind, number in light.items() if number]
        super().__init__(
            d_model,
            gate(d_model, num_experts),
            _as_experts(parts),
            top_k,
            normalisation=normalisation,
            shared=_shared(d_model, shared_experts * d_ff, activation, rate),
            balance=balance,
            router_z=router_z,
            bias_step=bias_step,
            capacity=capacity,
            computing=computing,
        )


def _share(active: int, used: int, given: int | None) -> int:
    if given is not None:
        return given
    if active // used < 1:
        raise ValueError(
            f"{active} hidden units cannot be shared by the {used} experts of a token; give d_ff"
        )
    return active // used


def _shared(
    d_model: int, d_ff: int, activation: ValueActivation, dropout: float
) -> nn.Module | None:
    """Return the shared experts, which add up: one feed-forward of their common width."""
    if not d_ff:
        return None
    if activation == "gelu":
        return FeedForward(d_model, d_ff, dropout)
    return _Alone(FeedForwardExperts(d_model, 1, d_ff, activation=activation, dropout=dropout))


class _Alone(nn.Module):
    """A single expert that every token passes."""

    def __init__(self, expert: Experts) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.expert.in_pieces([x_ND])[0]


def _as_experts(parts: list[nn.Module]) -> Experts:
    experts: list[Experts] = []
    for part in parts:
        if not isinstance(part, Experts):
            raise TypeError(
                f"experts must be built as a subclass of tsattn.nn.moe.Experts, got "
                f"{type(part).__name__}"
            )
        experts.append(part)
    return experts[0] if len(experts) == 1 else MixedExperts(experts)


def _check_sizes(d_model: int, gate: nn.Module, experts: Experts) -> None:
    expected = (d_model, experts.num_experts)
    sizes = (getattr(gate, "d_model", d_model), getattr(gate, "num_experts", expected[1]))
    if experts.d_model != d_model or sizes != expected:
        raise ValueError(
            f"gate and experts must have d_model={d_model} and one number of experts, got "
            f"{type(gate).__name__} of {sizes} and {type(experts).__name__} of "
            f"{(experts.d_model, experts.num_experts)}"
        )
