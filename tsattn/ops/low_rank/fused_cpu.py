"""Quadratic logits of low rank through the compiled CPU kernel."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::low_rank_logits",
    "(Tensor x, Tensor maps, Tensor? bias, int rank) -> Tensor",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::low_rank_logits_backward",
    "(Tensor grad, Tensor x, Tensor maps, Tensor? bias, int rank) -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def low_rank_logits(x_ND: Tensor, maps_MD: Tensor, bias_M: Tensor | None, rank: int) -> Tensor:
    """Return query times key of every expert, [N, E]."""
    return torch.ops.tsattn.low_rank_logits(x_ND, maps_MD, bias_M, rank)


def obstacle(*tensors: Tensor) -> str:
    """Say why the kernel cannot take these tensors, or nothing."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"it takes float32, not {tensor.dtype}"
    width = tensors[0].shape[-1]
    return f"the width of a token must be a multiple of 16, not {width}" if width % 16 else ""


@torch.library.register_fake("tsattn::low_rank_logits")
def _forward_fake(x: Tensor, maps: Tensor, bias: Any, rank: int) -> Tensor:
    return x.new_empty(x.shape[0], maps.shape[0] // rank - 1)


@torch.library.register_fake("tsattn::low_rank_logits_backward")
def _backward_fake(
    grad: Tensor, x: Tensor, maps: Tensor, bias: Any, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    to_bias = x.new_empty(0 if bias is None else maps.shape[0])
    return x.new_empty(x.shape), maps.new_empty(maps.shape), to_bias
