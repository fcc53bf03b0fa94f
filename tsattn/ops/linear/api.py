"""A linear map: chooses who multiplies."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops import build
from tsattn.ops.linear import fused_cpu

_LEAST_PRODUCTS = 1 << 24
"""Below this many multiplications the two ways take equally long."""
_NARROW = 64
_LEAST_NARROW_PRODUCTS = 1 << 20
"""The same between at most `_NARROW` features, which our own product multiplies."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x W' + b``, the same numbers as `torch.nn.functional.linear` up to rounding.

    On CPUs large products go to oneDNN, which adds the bias as it writes the result, where torch
    would copy it there first; in float32 it is also the faster of the two libraries torch has.
    Between at most 64 features (multiples of 16, float32) a product of our own takes all products
    of a slice of tokens while it lies in cache.

    Args:
        x: tokens [..., width].
        weight: ``W`` [features, width].
        bias: ``b`` [features].

    Example:
        >>> linear(torch.randn(8, 42, 16), torch.randn(48, 16), torch.zeros(48)).shape
        torch.Size([8, 42, 48])
    """
    narrow = max(x.shape[-1], len(weight)) <= _NARROW
    least = _LEAST_NARROW_PRODUCTS if narrow else _LEAST_PRODUCTS
    if torch.compiler.is_compiling() or x.numel() * len(weight) < least:
        return F.linear(x, weight, bias)
    if fused_cpu.obstacle(x, weight, bias) or not build.is_ready():
        return F.linear(x, weight, bias)
    return fused_cpu.linear(x, weight, bias)
