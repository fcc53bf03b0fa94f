"""Dropout through the compiled CPU kernels: one pass, no stored mask.

The backward passes draw the mask again from the seed; `gelu_dropout` keeps its argument alone.
"""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false

from typing import Any

import torch
from torch import Tensor

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define("tsattn::dropout", "(Tensor x, Tensor seed, float p) -> Tensor", tags=_TAGS)
torch.library.define(
    "tsattn::add_dropout", "(Tensor residual, Tensor x, Tensor seed, float p) -> Tensor", tags=_TAGS
)
torch.library.define(
    "tsattn::gelu_dropout", "(Tensor x, Tensor seed, float p) -> Tensor", tags=_TAGS
)
torch.library.define(
    "tsattn::gelu_dropout_backward",
    "(Tensor grad, Tensor x, Tensor seed, float p) -> Tensor",
    tags=_TAGS,
)


def dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``x * keep / (1 - p)``."""
    return torch.ops.tsattn.dropout(x, seed, p)


def add_dropout(residual: Tensor, x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``residual + dropout(x)`` in the wider of the two dtypes."""
    if residual.dtype != x.dtype and residual.dtype != torch.float32:
        residual, x = residual.to(torch.float32), x.to(torch.float32)
    return torch.ops.tsattn.add_dropout(residual, x, seed, p)


def gelu_dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Compute ``dropout(gelu(x))``."""
    return torch.ops.tsattn.gelu_dropout(x, seed, p)


def obstacle(x: Tensor) -> str:
    """Say why the kernels cannot take this tensor, or nothing."""
    if x.device.type != "cpu":
        return f"it runs on cpu, the tensor is on {x.device}"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16, not {x.dtype}"
    return ""


def _like_first(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


for _name in ("dropout", "add_dropout", "gelu_dropout", "gelu_dropout_backward"):
    torch.library.register_fake(f"tsattn::{_name}", _like_first)
