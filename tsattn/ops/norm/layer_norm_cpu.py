"""Residual path, dropout and layer normalisation through the compiled CPU kernel.

One pass over memory forwards and one backwards; the dropout mask is drawn again in the backward.
"""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

from tsattn.ops.norm.fused_cpu import obstacle

__all__ = ["add_dropout_layer_norm", "obstacle"]

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::add_dropout_layer_norm",
    "(Tensor residual, Tensor x, Tensor weight, Tensor bias, Tensor? seed, float p, float eps) "
    "-> (Tensor output, Tensor total, Tensor mean, Tensor inverse)",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::add_dropout_layer_norm_backward",
    "(Tensor grad, Tensor total, Tensor mean, Tensor inverse, Tensor weight, Tensor? seed, "
    "float p, ScalarType dtype) "
    "-> (Tensor grad_residual, Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    tags=_TAGS,
)


def add_dropout_layer_norm(
    residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None, p: float,
    eps: float,
) -> Tensor:  # fmt: skip
    """Return the normalised sum."""
    return torch.ops.tsattn.add_dropout_layer_norm(residual, x, weight, bias, seed, p, eps)[0]


@torch.library.register_fake("tsattn::add_dropout_layer_norm")
def _forward_fake(residual: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
    row = like.new_empty(residual.shape[:-1].numel())
    return like, torch.empty_like(like), row, torch.empty_like(row)


@torch.library.register_fake("tsattn::add_dropout_layer_norm_backward")
def _backward_fake(
    grad: Tensor, total: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor, seed: Any,
    p: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_x = torch.empty(total.shape, dtype=dtype, device=total.device)
    return torch.empty_like(total), grad_x, torch.empty_like(weight), torch.empty_like(weight)
