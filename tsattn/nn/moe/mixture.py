"""A mixture built from sizes, as recipes and the command name it."""

from collections.abc import Callable

from torch import Tensor, nn

from tsattn.nn.feedforward import FeedForward
from tsattn.nn.moe.experts import Experts, FeedForwardExperts
from tsattn.nn.moe.gates import LinearGate
from tsattn.nn.moe.gates.base import build_gate
from tsattn.nn.moe.layer import MoEFeedForward
from tsattn.nn.moe.light_experts import ConstantExperts, CopyExperts, MixedExperts, ZeroExperts
from tsattn.nn.moe.selection import Normalisation, check_top_k
from tsattn.ops import ValueActivation


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
        TypeError: a gate or experts that are none, such as a name.

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
            build_gate(gate, d_model, num_experts),
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
