"""The choice of experts through the compiled CPU kernels."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

import torch
from torch import Tensor

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define("tsattn::softmax_rows", "(Tensor x) -> Tensor", tags=_TAGS)
torch.library.define(
    "tsattn::softmax_rows_backward", "(Tensor grad, Tensor output) -> Tensor", tags=_TAGS
)
torch.library.define("tsattn::largest", "(Tensor scores, int top_k) -> Tensor", tags=_TAGS)
torch.library.define(
    "tsattn::sort_slots", "(Tensor chosen, int num_experts) -> (Tensor, Tensor)", tags=_TAGS
)


def softmax_rows(x_NE: Tensor) -> Tensor:
    """Return the softmax of every row."""
    return torch.ops.tsattn.softmax_rows(x_NE)


def largest(scores_NE: Tensor, top_k: int) -> Tensor:
    """Return the indices [N, K] of the largest scores of each row, largest first."""
    return torch.ops.tsattn.largest(scores_NE, top_k)


def sort_slots(chosen_NK: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Return the slots sorted by expert, and how many each has."""
    return torch.ops.tsattn.sort_slots(chosen_NK, num_experts)


@torch.library.register_fake("tsattn::softmax_rows")
def _softmax_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake("tsattn::softmax_rows_backward")
def _softmax_backward_fake(grad: Tensor, output: Tensor) -> Tensor:
    return grad.new_empty(grad.shape)


@torch.library.register_fake("tsattn::largest")
def _largest_fake(scores: Tensor, top_k: int) -> Tensor:
    return scores.new_empty((scores.shape[0], top_k), dtype=torch.int64)


@torch.library.register_fake("tsattn::sort_slots")
def _sort_fake(chosen: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    return chosen.new_empty(chosen.numel()), chosen.new_empty(num_experts)
