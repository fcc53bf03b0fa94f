"""How many tokens an expert takes at most."""

import math

import torch
from torch import Tensor

from tsattn.nn.moe.dispatch import sort_slots
from tsattn.tensors import Chosen, Weights


def capacity_of(tokens: int, top_k: int, num_experts: int, factor: float) -> int:
    """Return how many slots an expert takes: ``ceil(factor * N K / E)``.

    Example:
        >>> capacity_of(100, 2, 4, 1.1)
        55
    """
    share = factor * tokens * top_k / num_experts
    return math.ceil(share * (1 - 1e-12))  # 55.00000000000001 is 55


def drop_beyond(
    experts_NK: Chosen, weights_NK: Weights, num_experts: int, factor: float
) -> tuple[Tensor, Tensor]:
    """Give weight zero to the slots that their expert has no room for.

    An expert takes its slots in the order of the tokens. A token whose slots are all dropped gets
    nothing from the layer but what its residual path carries.

    Args:
        experts_NK: chosen experts.
        weights_NK: their weights.
        num_experts: number E of experts.
        factor: 1 gives each expert room for an equal share of the slots.

    Returns:
        The weights with zeros, and how many slots were dropped (a scalar).

    Source: Fedus et al. 2022, equation 3.
    """
    room = capacity_of(len(experts_NK), experts_NK.shape[1], num_experts, factor)
    slots = sort_slots(experts_NK, num_experts)
    starts_E = slots.counts_E.cumsum(0) - slots.counts_E
    sorted_experts = experts_NK.flatten()[slots.order_S]
    place_S = torch.arange(len(sorted_experts), device=sorted_experts.device)
    beyond_sorted = place_S - starts_E[sorted_experts] >= room
    beyond = torch.zeros_like(beyond_sorted).scatter(0, slots.order_S, beyond_sorted)
    beyond_NK = beyond.view_as(experts_NK)
    return weights_NK.masked_fill(beyond_NK, 0.0), beyond_NK.sum()
