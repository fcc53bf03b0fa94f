"""An encoder in evaluation through the compiled CPU kernel."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tsattn.ops import build
from tsattn.ops.attention.fused_cpu import NUMBERS
from tsattn.ops.encoder.layers import LayerWeights

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::encode",
    "(Tensor x, Tensor[] weights, int heads, int activation, bool residual_scores) -> Tensor",
    tags=_TAGS,
)


def encode(
    x_BLD: Tensor,
    layers: Sequence[LayerWeights],
    num_heads: int,
    activation: str,
    residual_scores: bool,
) -> Tensor:
    """Apply all layers; under autocast the products are computed in its dtype."""
    dtype = _dtype_of_products(layers[0].projection)
    weights = [
        weight.to(dtype) if weight.ndim == 2 else weight for layer in layers for weight in layer
    ]
    return torch.ops.tsattn.encode(x_BLD, weights, num_heads, NUMBERS[activation], residual_scores)


def obstacle(x_BLD: Tensor, layers: Sequence[LayerWeights], activation: object) -> str:
    """Say why the operator cannot take these tensors, or nothing."""
    if torch.is_grad_enabled():
        return "it has no derivatives, and gradients are recorded"
    if not isinstance(activation, str) or activation not in NUMBERS:
        return f"it has the activations {', '.join(NUMBERS)}, not {activation!r}"
    for tensor in (x_BLD, *(weight for layer in layers for weight in layer)):
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"it takes float32 and bfloat16, not {tensor.dtype}"
    dtypes = {x_BLD.dtype, *(weight.dtype for layer in layers for weight in layer)}
    if x_BLD.dtype != torch.float32 or (len(dtypes) > 1 and not torch.is_autocast_enabled("cpu")):
        named = ", ".join(sorted(map(str, dtypes)))
        return f"it takes tokens and weights of float32 where autocast is off, got {named}"
    if forward_ad.unpack_dual(x_BLD).tangent is not None:
        return "it has no derivatives, and the tokens carry a tangent"
    hidden, width = layers[0].expand.shape
    dtype = _dtype_of_products(layers[0].projection)
    if not is_compiled(width, hidden, dtype):
        return f"no layers of {width} and {hidden} features in {dtype} are compiled here"
    return ""


def is_compiled(width: int, hidden: int, dtype: torch.dtype) -> bool:
    """Say whether there are kernels, and whether they are for such layers on this processor."""
    return build.is_ready() and torch.ops.tsattn.encodes(width, hidden, dtype)


def _dtype_of_products(weight: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype


@torch.library.register_fake("tsattn::encode")
def _fake(x_BLD: Tensor, *_: Any) -> Tensor:
    return torch.empty(x_BLD.shape, dtype=x_BLD.dtype, device=x_BLD.device)
