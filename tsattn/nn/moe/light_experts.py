"""Experts that compute next to nothing, and a row of experts of several kinds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tsattn.nn.moe.experts import Experts, Measure
from tsattn.tensors import FlatTokens, Logits


class ConstantExperts(Experts):
    """One learned vector each, whatever the token.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Source: zero-compute experts paper.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.value = nn.Parameter(torch.randn(num_experts, d_model) * d_model**-0.5)

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return the vectors, the same for each token."""
        return self.value.to(x_ND.dtype).expand(x_ND.shape[0], -1, -1)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Repeat each vector."""
        values = self.value.unbind(0)
        return [v.to(x.dtype).expand_as(x) for x, v in zip(pieces, values, strict=True)]

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return the weighted sum of the vectors."""
        return (weights_NE.to(self.value.dtype) @ self.value).to(x_ND.dtype)

    @property
    def flops_per_slot(self) -> int:
        """None."""
        return 0


class ZeroExperts(Experts):
    """Add nothing to their tokens.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
    """

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return zeros."""
        return x_ND.new_zeros(x_ND.shape[0], self.num_experts, self.d_model)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Return zeros."""
        return [torch.zeros_like(x) for x in pieces]

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(x_ND)


class CopyExperts(Experts):
    """Hand their tokens on as they are.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
    """

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return each token once for every expert."""
        return x_ND[:, None, :].expand(-1, self.num_experts, -1)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Return the tokens."""
        return list(pieces)

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return the tokens times their weights."""
        return x_ND * weights_NE.sum(dim=-1, keepdim=True).to(x_ND.dtype)


class MixedExperts(Experts):
    """Experts of several kinds in a row, numbered through.

    Args:
        parts: experts of one width.

    Raises:
        ValueError: no parts, or parts of different widths.
    """

    def __init__(self, parts: Sequence[Experts]) -> None:
        widths = {part.d_model for part in parts}
        if len(widths) != 1:
            raise ValueError(f"mixed experts need parts of one width, got {sorted(widths)}")
        super().__init__(widths.pop(), sum(part.num_experts for part in parts))
        self.parts = nn.ModuleList(parts)
        self.sizes = [part.num_experts for part in parts]

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return the outputs of all experts."""
        return torch.cat([part.every(x_ND) for part in self._parts()], dim=1)

    def measured(self, x_ND: FlatTokens, measure: Measure) -> Tensor:
        """Return what is measured of all experts."""
        return torch.cat([part.measured(x_ND, measure) for part in self._parts()], dim=1)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Apply expert e to piece e."""
        outputs: list[Tensor] = []
        for part in self._parts():
            mine = pieces[len(outputs) : len(outputs) + part.num_experts]
            outputs += part.in_pieces(mine)
        return outputs

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return the weighted sum over all parts."""
        split = torch.split(weights_NE, self.sizes, dim=1)
        total, *more = [p.mixture(x_ND, w) for p, w in zip(self._parts(), split, strict=True)]
        for output in more:
            total = total + output
        return total

    def _parts(self) -> list[Experts]:
        return [part for part in self.parts if isinstance(part, Experts)]
