"""Dropout from a seed in plain torch: the oracle of the compiled kernels, mask for mask."""

from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.dropout.philox import keep_flat, keep_scale


def dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``x * keep / (1 - p)``."""
    keep = keep_flat(seed, x.numel(), p).view(x.shape)
    return (x * keep_scale(p)).masked_fill(~keep, 0.0)


def add_dropout(residual: Tensor, x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``residual + dropout(x)``."""
    return residual + dropout(x, seed, p)


def gelu_dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``dropout(gelu(x))``."""
    return dropout(F.gelu(x), seed, p)
