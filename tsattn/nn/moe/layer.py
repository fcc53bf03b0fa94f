"""The mixture of experts as a feed-forward."""

from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe.balance import SelectionBias, balance_loss, over_ranks, router_z_loss
from tsattn.nn.moe.capacity import drop_beyond
from tsattn.nn.moe.dispatch import apply_experts, as_computing, count
from tsattn.nn.moe.experts import Experts
from tsattn.nn.moe.gates.wrappers import is_dense
from tsattn.nn.moe.selection import Normalisation, as_normalisation, check_top_k, select
from tsattn.tensors import Chosen, ExpertCounts, Logits, Weights


class Routing(NamedTuple):
    """Who worked for which token, and why; N tokens in the order of the input.

    Attributes:
        logits_NE: of the gate.
        probabilities_NE: the gate's distribution over all experts.
        experts_NK: chosen experts, best first; by their numbers where every expert is chosen.
        weights_NK: their weights, 0 for dropped slots.
        counts_E: slots of each expert, dropped ones included.
        dropped: number of slots dropped for want of capacity, a scalar.
        competed_NK: where the layer competed, who won and worked instead of the gate's choice,
            which the other fields go on to describe; else None.
    """

    logits_NE: Logits
    probabilities_NE: Logits
    experts_NK: Chosen
    weights_NK: Weights
    counts_E: ExpertCounts
    dropped: Tensor
    competed_NK: Chosen | None = None


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
        >>> from tsattn.nn.moe import FeedForwardExperts, QuadraticMonomialGate
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
        if logits.shape != (x_ND.shape[0], self.num_experts):
            raise ValueError(
                f"{type(self.gate).__name__} must return logits of [tokens {x_ND.shape[0]}, "
                f"experts {self.num_experts}], got {list(logits.shape)}"
            )
        bias = self.selection_bias
        chosen, weights, probabilities = select(
            logits,
            self.num_experts if is_dense(self.gate) else self.top_k,
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


def _check_sizes(d_model: int, gate: nn.Module, experts: Experts) -> None:
    expected = (d_model, experts.num_experts)
    sizes = (getattr(gate, "d_model", d_model), getattr(gate, "num_experts", expected[1]))
    if experts.d_model != d_model or sizes != expected:
        raise ValueError(
            f"gate and experts must have d_model={d_model} and one number of experts, got "
            f"{type(gate).__name__} of {sizes} and {type(experts).__name__} of "
            f"{(experts.d_model, experts.num_experts)}"
        )
