"""Residual path, dropout and batch normalisation through the compiled CPU kernel.

Two passes over memory forwards and two backwards; the dropout mask is drawn again in the backward.
Means and variances are summed in a fixed order, whatever the number of threads.
"""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::add_dropout_batch_norm",
    "(Tensor residual, Tensor x, Tensor weight, Tensor bias, Tensor? seed, float p, float eps) "
    "-> (Tensor output, Tensor total, Tensor mean, Tensor variance)",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::add_dropout_batch_norm_backward",
    "(Tensor grad, Tensor total, Tensor mean, Tensor variance, Tensor weight, Tensor? seed, "
    "float p, float eps, ScalarType dtype) "
    "-> (Tensor grad_residual, Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    tags=_TAGS,
)


def add_dropout_batch_norm(
    residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None, p: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the normalised sum, and mean and population variance of its features."""
    output, _, mean, variance = torch.ops.tsattn.add_dropout_batch_norm(
        residual, x, weight, bias, seed, p, eps
    )
    return output, mean, variance


def obstacle(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> str:
    """Say why the kernel cannot take these tensors, or nothing."""
    for tensor in (residual, x, weight, bias):
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
    for tensor in (residual, weight, bias):
        if tensor.dtype != torch.float32:
            return f"it takes a float32 residual path, weight and bias, not {tensor.dtype}"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16, not {x.dtype}"
    return ""


@torch.library.register_fake("tsattn::add_dropout_batch_norm")
def _forward_fake(residual: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
    feature = like.new_empty(residual.shape[-1:])
    return like, torch.empty_like(like), feature, torch.empty_like(feature)


@torch.library.register_fake("tsattn::add_dropout_batch_norm_backward")
def _backward_fake(
    grad: Tensor, total: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, seed: Any,
    p: float, eps: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_x = torch.empty(total.shape, dtype=dtype, device=total.device)
    return torch.empty_like(total), grad_x, torch.empty_like(mean), torch.empty_like(mean)
