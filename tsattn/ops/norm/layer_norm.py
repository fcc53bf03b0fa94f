"""Layer normalisation of a residual path: chooses an implementation, draws the seed, calls it."""

from torch import Tensor
from torch.nn import functional as F

from tsattn.ops import build
from tsattn.ops.dropout.api import add_dropout
from tsattn.ops.dropout.philox import draw_seed
from tsattn.ops.impl import Impl, as_impl
from tsattn.ops.norm import layer_norm_cpu
from tsattn.ops.norm.arguments import require_rows


def add_dropout_layer_norm(
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    p: float = 0.0,
    eps: float = 1e-5,
    impl: str | Impl = Impl.AUTO,
) -> Tensor:
    """Normalise every row of ``s = residual + dropout(x)`` over its features.

    ``(s - mean(s)) / sqrt(var(s) + eps) * weight + bias``, with mean and population variance of
    each row (last axis). The backward pass keeps ``s`` and draws the dropout mask again.

    Args:
        residual: [..., features], float32 beside a bfloat16 ``x`` gives float32.
        x: like ``residual``, what is dropped out.
        weight: factor of each feature, [features].
        bias: what is added to each feature, [features].
        p: probability of dropping an element of ``x``, as in `tsattn.ops.dropout`.
        eps: added to the variance, at least 0.
        impl: ``auto``, ``reference`` or ``cpu``. ``auto`` takes the compiled kernel where it can.

    Raises:
        ValueError: shapes that do not fit, ``p`` outside [0, 1), or an impl that this operation
            does not have or that cannot take these tensors.

    Source: Ba, Kiros, Hinton 2016, equation 4.

    Example:
        >>> tokens = torch.randn(8, 42, 16)
        >>> ones, zeros = torch.ones(16), torch.zeros(16)
        >>> add_dropout_layer_norm(tokens, tokens, ones, zeros, p=0.2).shape
        torch.Size([8, 42, 16])
    """
    require_rows(residual, x, weight, bias, p)
    chosen = as_impl(impl)
    obstacle = layer_norm_cpu.obstacle(residual, x, weight, bias)
    # the kernel wants rows, of which an empty batch has none
    if chosen is Impl.AUTO and (obstacle or not build.is_ready() or x.numel() == 0):
        return F.layer_norm(add_dropout(residual, x, p), weight.shape, weight, bias, eps)
    if chosen is Impl.REFERENCE:
        total = add_dropout(residual, x, p, impl=Impl.REFERENCE)
        return F.layer_norm(total, weight.shape, weight, bias, eps)
    if chosen is not Impl.AUTO and chosen is not Impl.CPU:
        raise ValueError(
            f"add_dropout_layer_norm has no impl {chosen.value!r}; expected auto, reference or cpu"
        )
    if obstacle:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
    build.ensure()
    seed = draw_seed() if p > 0 else None
    return layer_norm_cpu.add_dropout_layer_norm(residual, x, weight, bias, seed, p, eps)
