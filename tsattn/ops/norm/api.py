"""Batch normalisation of a residual path: chooses an implementation, draws the seed, calls it."""

from typing import NamedTuple

from torch import Tensor

from tsattn.ops import build
from tsattn.ops.dropout.api import add_dropout
from tsattn.ops.dropout.philox import draw_seed
from tsattn.ops.impl import Impl, as_impl
from tsattn.ops.norm import fused_cpu, reference
from tsattn.ops.norm.arguments import require_rows


class BatchNormed(NamedTuple):
    """The normalised tokens, and the statistics they were normalised with, one per feature."""

    output: Tensor
    mean: Tensor
    variance: Tensor
    """Population variance: divided by the number of rows."""


def add_dropout_batch_norm(
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    p: float = 0.0,
    eps: float = 1e-5,
    impl: str | Impl = Impl.AUTO,
) -> BatchNormed:
    """Normalise every feature of ``s = residual + dropout(x)`` over all rows.

    ``(s - mean(s)) / sqrt(var(s) + eps) * weight + bias``, with mean and population variance of
    each feature (last axis) over all other axes: batch normalisation in training. The backward
    pass keeps ``s`` and draws the dropout mask again.

    Args:
        residual: [..., features], float32 beside a bfloat16 ``x`` gives float32.
        x: like ``residual``, what is dropped out.
        weight: factor of each feature, [features].
        bias: what is added to each feature, [features].
        p: probability of dropping an element of ``x``, as in `tsattn.ops.dropout`.
        eps: added to the variance, at least 0.
        impl: ``auto``, ``reference`` or ``cpu``. ``auto`` takes the compiled kernel where it can.

    Raises:
        ValueError: shapes that do not fit, fewer than two rows, ``p`` outside [0, 1), or an impl
            that this operation does not have or that cannot take these tensors.

    Source: Ioffe and Szegedy 2015, algorithm 1.

    Example:
        >>> tokens = torch.randn(8, 42, 16)
        >>> ones, zeros = torch.ones(16), torch.zeros(16)
        >>> add_dropout_batch_norm(tokens, tokens, ones, zeros, p=0.2).output.shape
        torch.Size([8, 42, 16])
    """
    require_rows(residual, x, weight, bias, p)
    if x.numel() < 2 * x.shape[-1]:
        raise ValueError(f"statistics need at least two rows of features, got {list(x.shape)}")
    chosen = as_impl(impl)
    obstacle = fused_cpu.obstacle(residual, x, weight, bias)
    if chosen is Impl.AUTO:
        if not obstacle and build.is_ready():
            chosen = Impl.CPU
        else:
            total = add_dropout(residual, x, p)
            return BatchNormed(*reference.batch_norm(total, weight, bias, eps))
    if chosen is Impl.CPU:
        if obstacle:
            raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
        build.ensure()
        seed = draw_seed() if p > 0 else None
        return BatchNormed(
            *fused_cpu.add_dropout_batch_norm(residual, x, weight, bias, seed, p, eps)
        )
    if chosen is not Impl.REFERENCE:
        raise ValueError(
            f"add_dropout_batch_norm has no impl {chosen.value!r}; expected auto, reference or cpu"
        )
    total = add_dropout(residual, x, p, impl=Impl.REFERENCE)
    return BatchNormed(*reference.batch_norm(total, weight, bias, eps))
