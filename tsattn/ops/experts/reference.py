"""Experts in plain torch, with the mask that the kernel draws: its oracle."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.activations import activate
from tsattn.ops.dropout.philox import LANES, keep_groups, keep_scale

NARROW = 32
"""Tokens at most this wide have a kernel of their own, with the GELU in float32."""
BLOCK = 240
"""Slots of a block of the kernel; a block begins with groups of dropout decisions of its own."""


def expert_feedforward(
    x_ND: Tensor, weights_NK: Tensor, order_S: Tensor, counts_E: Tensor,
    parameters: tuple[Tensor, ...], seed: Tensor | None, p: float, activation: str,
) -> Tensor:  # fmt: skip
    """Compute the weighted sum of the chosen experts' outputs, one expert after the other."""
    top_k = weights_NK.shape[1]
    total = torch.zeros_like(x_ND)
    first_block = 0
    counts = [int(count) for count in counts_E]
    parts = zip(torch.split(order_S, counts), *parameters, strict=True)
    for slots, w1, b1, w2, b2 in parts:
        tokens = slots // top_k
        hidden = activate(activation, F.linear(x_ND[tokens], w1, b1))
        if seed is not None:
            is_narrow = x_ND.shape[1] <= NARROW and activation == "gelu"
            lanes = is_narrow and x_ND.dtype != torch.bfloat16
            many, width = hidden.shape
            keep = keep_hidden(seed, first_block, many, width, p, slots_in_lanes=lanes)
            hidden = (hidden * keep_scale(p)).masked_fill(~keep, 0.0)
        output = F.linear(hidden, w2, b2) * weights_NK.flatten()[slots, None].to(x_ND.dtype)
        total = total.index_add(0, tokens, output.to(total.dtype))
        first_block += -(-len(slots) // BLOCK)
    return total


def keep_hidden(
    seed: Tensor, first_block: int, slots: int, width: int, p: float, *, slots_in_lanes: bool
) -> Tensor:
    """Return the decisions for the hidden units [slots, width] of one expert.

    A group is 16 slots by 16 units, numbered [block, slot of the block // 16, unit // 16].

    Args:
        seed: one int64 number.
        first_block: number of the expert's first block.
        slots: of the expert.
        width: hidden units of a slot, a multiple of 16.
        p: probability of dropping.
        slots_in_lanes: whether the lanes of a group are slots and its parts units, as the kernel
            for narrow tokens has it, or the other way round.
    """
    rows, across = -(-slots // LANES), width // LANES
    begin = first_block * (BLOCK // LANES)
    groups = torch.arange(begin * across, (begin + rows) * across).view(rows, across)
    keep = keep_groups(seed, groups, p)  # [rows, across, 16 parts, 16 lanes]
    keep = keep.mT if slots_in_lanes else keep
    return keep.transpose(1, 2).reshape(rows * LANES, width)[:slots]
