"""The situations every implementation of active attention must master, and the equation itself.

A new implementation is tested by running `implementation` of every case against `plain` through
`tests.budget.assert_within_budget`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.budget import Computation
from tsattn.ops import ValueActivation, active_attention

EQUATION_ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}
"""The six as formulas. Only for float64: some cancel in narrower types."""


@dataclass(frozen=True)
class Case:
    """One situation; `str` names it in the report of the tests.

    ``mask``: ``holes`` leaves a random third out, with one query that sees nothing; ``bias`` adds
    random numbers; ``bias with holes`` is a floating mask with minus infinity; ``keys`` is a mask
    of one dimension, over the keys.
    """

    queries: int = 42
    keys: int | None = None
    heads: int = 4
    width: int = 8
    value_width: int | None = None
    activation: ValueActivation = "tanh"
    mask: Literal["none", "holes", "bias", "bias with holes", "keys"] = "none"
    is_causal: bool = False
    prev_scores: bool = False
    return_scores: bool = False
    scale: float | None = None
    layout: Literal["contiguous", "heads last", "sliced", "shared"] = "contiguous"
    batch: int = 2

    def __str__(self) -> str:
        """Name what differs from the usual situation."""
        usual = Case()
        differing = {k: v for k, v in vars(self).items() if v != getattr(usual, k)}
        return ",".join(f"{k}={getattr(v, '__name__', v)}" for k, v in differing.items()) or "usual"

    def inputs(self, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
        """Draw the tensors of this case."""
        generator = torch.Generator().manual_seed(seed)
        keys = self.queries if self.keys is None else self.keys
        value_width = self.width if self.value_width is None else self.value_width

        def heads(length: int, width: int) -> Tensor:
            return self._laid_out(length, width, generator).to(dtype)

        tensors = {
            "q": heads(self.queries, self.width),
            "k": heads(keys, self.width),
            "v": heads(keys, value_width),
        }
        if self.prev_scores:
            shape = (self.batch, self.heads, self.queries, keys)
            tensors["prev_scores"] = torch.randn(shape, generator=generator).to(dtype)
        if self.mask != "none":
            tensors["mask"] = self._draw_mask(keys, dtype, generator)
        return tensors

    def implementation(self, impl: str) -> Computation:
        """Return the library's computation of this case."""

        def compute(**tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
            return active_attention(
                tensors["q"],
                tensors["k"],
                tensors["v"],
                activation=self.activation,
                prev_scores=tensors.get("prev_scores"),
                return_scores=self.return_scores,
                mask=tensors.get("mask"),
                is_causal=self.is_causal,
                scale=self.scale,
                impl=impl,
            )

        return compute

    def plain(self, **tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the equation step by step, in the dtype of the tensors."""
        q, k, v = tensors["q"], tensors["k"], tensors["v"]
        scale = self.width**-0.5 if self.scale is None else self.scale
        scores = scale * torch.einsum("bnqw,bnkw->bnqk", q, k)
        if "prev_scores" in tensors:
            scores = scores + tensors["prev_scores"]
        logits = scores + self._hidden(tensors)
        blind = logits.isinf().all(dim=-1, keepdim=True)
        weights = torch.where(blind, 0.0, torch.softmax(torch.where(blind, 0.0, logits), dim=-1))
        output = torch.einsum("bnqk,bnkv->bnqv", weights.to(v.dtype), self._activate(v))
        return (output, scores) if self.return_scores else output

    def torchs_own(self, **tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the output with torch's own attention; the scores, if wanted, step by step.

        On CPUs it has an exponential of its own and is up to three times as wrong as `plain`.
        """
        bias = tensors.get("prev_scores", 0.0) + self._hidden(tensors)
        output = F.scaled_dot_product_attention(
            tensors["q"], tensors["k"], self._activate(tensors["v"]), bias, scale=self.scale
        )
        if not self.return_scores:
            return output
        return output, cast(tuple[Tensor, Tensor], self.plain(**tensors))[1]

    def _hidden(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Express mask and causality as what is added to the scores."""
        q, k, mask = tensors["q"], tensors["k"], tensors.get("mask")
        hidden = q.new_zeros(q.shape[2], k.shape[2])
        if self.is_causal:
            key, query = torch.arange(k.shape[2]), torch.arange(q.shape[2])
            later = (key[None, :] > query[:, None]).to(q.device)
            hidden = hidden.masked_fill(later, float("-inf"))
        if mask is None:
            return hidden
        return hidden.masked_fill(~mask, float("-inf")) if self._is_boolean else hidden + mask

    @property
    def _is_boolean(self) -> bool:
        return self.mask in ("holes", "keys")

    def _activate(self, v: Tensor) -> Tensor:
        if callable(self.activation):
            return self.activation(v)
        if v.dtype == torch.float64:
            return EQUATION_ACTIVATIONS[self.activation](v)
        return v if self.activation == "identity" else getattr(F, self.activation)(v)

    def _laid_out(self, length: int, width: int, generator: torch.Generator) -> Tensor:
        batch, heads = self.batch, self.heads
        if self.layout == "heads last":
            return torch.randn(batch, length, heads, width, generator=generator).transpose(1, 2)
        if self.layout == "sliced":
            return torch.randn(batch, heads, 2 * length + 1, width + 3, generator=generator)[
                :, :, 1::2, 2:-1
            ]
        if self.layout == "shared":
            return torch.randn(1, 1, length, width, generator=generator).expand(
                batch, heads, -1, -1
            )
        return torch.randn(batch, heads, length, width, generator=generator)

    def _draw_mask(self, keys: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        if self.mask == "keys":
            return torch.arange(keys) % 3 != 0
        shape = (self.batch, 1, self.queries, keys)
        bias = torch.randn(shape, generator=generator).to(dtype)
        if self.mask == "bias":
            return bias
        sees = torch.rand(shape, generator=generator) > 1 / 3
        sees[:, :, self.queries // 2] = False
        return sees if self._is_boolean else bias.masked_fill(~sees, float("-inf"))


def shifted_square(x: Tensor) -> Tensor:
    """Serve as an activation that is not one of the six."""
    return (x + 0.5).square()


CASES = [
    *(Case(queries=n, heads=h, width=w, prev_scores=True, return_scores=True)
      for n, h, w in [(1, 1, 4), (41, 16, 8), (42, 4, 4), (43, 1, 64), (63, 2, 8), (200, 2, 64)]),
    *(Case(queries=n, heads=h, width=w)
      for n, h, w in [(1, 4, 8), (41, 1, 64), (42, 16, 8), (43, 4, 4), (63, 1, 4), (200, 1, 8)]),
    *(Case(queries=n, heads=h, width=w, value_width=v, prev_scores=n < 63, return_scores=n < 43)
      for n, h, w, v in [(41, 3, 3, 3), (42, 2, 5, 5), (43, 1, 17, 17), (63, 2, 80, 80),
                         (17, 2, 1, 1), (200, 1, 17, 80), (43, 2, 80, 3)]),
    *(Case(activation=name) for name in EQUATION_ACTIVATIONS),
    *(Case(activation=name, prev_scores=True, return_scores=True) for name in EQUATION_ACTIVATIONS),
    Case(activation=shifted_square),
    Case(prev_scores=True),
    Case(return_scores=True),
    Case(keys=96, value_width=5),
    Case(queries=96, keys=43, is_causal=True),
    Case(queries=43, keys=96, is_causal=True, return_scores=True),
    Case(is_causal=True, prev_scores=True),
    Case(is_causal=True, prev_scores=True, return_scores=True),
    *(Case(queries=13, keys=41, mask=mask, is_causal=causal, prev_scores=both, return_scores=both)
      for mask in ("holes", "bias", "bias with holes", "keys")
      for causal in (False, True)
      for both in (False, True)),
    Case(mask="holes", prev_scores=True),
    Case(scale=0.0),
    Case(scale=-1.7, prev_scores=True, return_scores=True),
    Case(layout="heads last", keys=63, prev_scores=True),
    Case(layout="sliced", return_scores=True),
    Case(layout="shared", is_causal=True),
    Case(layout="sliced", mask="bias"),
]  # fmt: skip
