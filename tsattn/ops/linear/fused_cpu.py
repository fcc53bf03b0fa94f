"""A linear map through oneDNN, which torch takes for few float32 products, or through our own."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::linear", "(Tensor x, Tensor weight, Tensor? bias) -> Tensor", tags=_TAGS
)
torch.library.define(
    "tsattn::linear_backward",
    "(Tensor grad, Tensor x, Tensor weight, bool need_x, bool need_weight, bool need_bias) "
    "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    tags=_TAGS,
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``x W' + b``; under autocast in its dtype."""
    return torch.ops.tsattn.linear(x, weight, bias)


def obstacle(x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    """Say why the operator cannot take these tensors, or nothing."""
    if not torch.backends.mkldnn.is_available():
        return "this torch is built without oneDNN"
    is_cast = torch.is_autocast_enabled("cpu")
    if is_cast and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return f"it takes autocast to bfloat16, not {torch.get_autocast_dtype('cpu')}"
    for tensor in (x, weight) if bias is None else (x, weight, bias):
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"it takes float32 and bfloat16, not {tensor.dtype}"
        if tensor.dtype != x.dtype and not is_cast:
            return f"it takes one dtype, not {x.dtype} and {tensor.dtype}"
    return ""


@torch.library.register_fake("tsattn::linear")
def _forward_fake(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
    return weight.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.register_fake("tsattn::linear_backward")
def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, need_x: bool, need_weight: bool, need_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if need_x else 0),
        weight.new_empty(weight.shape if need_weight else 0),
        weight.new_empty(weight.shape[0] if need_bias else 0),
    )
