"""What every gate is: tokens in, float32 logits out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tsattn.nn.moe.selection import Normalisation
from tsattn.tensors import FlatTokens, Logits

_NARROW = (torch.bfloat16, torch.float16)


class Gate(nn.Module):
    """Base of the gates: ``gate(x_ND) -> logits_NE``.

    Logits are float32 whatever the precision around (float64 for float64 tokens), and that of the
    parameters, which count as float32 where they are narrower. A subclass computes them in `score`.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Raises:
        ValueError: a size below one.
    """

    normalisation: Normalisation = "topk_softmax"
    """How a layer turns these logits into weights where it is not told."""

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__()
        if d_model < 1 or num_experts < 1:
            raise ValueError(
                f"a gate needs d_model and num_experts of at least 1, got d_model={d_model}, "
                f"num_experts={num_experts}"
            )
        self.d_model = d_model
        self.num_experts = num_experts

    def forward(self, x_ND: FlatTokens) -> Logits:
        """Return the logits [N, E] of tokens [N, D]."""
        x = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            if any(parameter.dtype in _NARROW for parameter in self.parameters()):
                return self._score_widened(x)
            return self.score(x)

    def _score_widened(self, x_ND: Tensor) -> Tensor:
        """Return the logits with wide copies in the place of narrow parameters.

        Gates within this one see to theirs when they are called.
        """
        gates = [part for part in self.modules() if isinstance(part, Gate) and part is not self]
        inner = {id(parameter) for gate in gates for parameter in gate.parameters()}
        wide = {
            f"gate.{name}": parameter.to(x_ND.dtype)
            for name, parameter in self.named_parameters()
            if parameter.dtype in _NARROW and id(parameter) not in inner
        }
        return functional_call(_Scoring(self), wide, (x_ND,))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        raise NotImplementedError

    @property
    def stored_parameters(self) -> int:
        """Numbers that are stored and trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def free_parameters(self) -> int | None:
        """Numbers of those that the logits can tell apart; None where nobody has counted them."""
        return None

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        return 2 * self.stored_parameters

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"d_model={self.d_model}, num_experts={self.num_experts}"


class _Scoring(nn.Module):
    """Calls `Gate.score` of a gate, and none of its hooks."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.gate.score(x_ND)


def build_gate(
    factory: Callable[[int, int], nn.Module], d_model: int, num_experts: int
) -> nn.Module:
    """Return the gate that a factory builds.

    Raises:
        TypeError: what is given builds nothing.
    """
    if isinstance(factory, nn.Module) or not callable(factory):
        given = repr(factory) if isinstance(factory, str) else type(factory).__name__
        raise TypeError(
            "gate must be a class of tsattn.nn.moe.gates, for example gate=LinearGate, or a "
            f"function of d_model and num_experts that returns a gate, got {given}"
        )
    return factory(d_model, num_experts)


def check_rank(rank: int, d_model: int) -> None:
    """Refuse a rank that is no rank of a map from tokens.

    Raises:
        ValueError: below one, or above the width.
    """
    if not 1 <= rank <= d_model:
        raise ValueError(
            f"rank must be between 1 and d_model, got rank={rank} for d_model={d_model}; leave it "
            "out for the full form"
        )
