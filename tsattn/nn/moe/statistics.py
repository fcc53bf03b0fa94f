"""What routing looked like: load, entropies, changes, and how far the router knows the winners."""

import math

import torch
from torch import Tensor

from tsattn.nn.moe.selection import best
from tsattn.tensors import Chosen, ExpertCounts, Logits, Weights


def load_share(counts_E: ExpertCounts) -> Tensor:
    """Return the share of all slots that each expert got, [E]; the sum is one."""
    return counts_E.double() / counts_E.sum().clamp_min(1)


def selection_entropy(counts_E: ExpertCounts) -> float:
    """Return the entropy of the load in bits: 0 for one expert alone, log2 E for equal load.

    Source: CompeteSMoE paper, appendix D (a), which gives 2 as the maximum for four experts.
    """
    return _entropy_bits(load_share(counts_E)).item()


def weight_entropy(weights_NK: Weights) -> float:
    """Return the mean over tokens of `weight_entropies`.

    Source: CompeteSMoE paper, appendix D (b).
    """
    return weight_entropies(weights_NK).mean().item()


def weight_entropies(weights_NK: Weights) -> Tensor:
    """Return the entropy in bits of each token's weights, scaled to the sum one, [N]."""
    weights = weights_NK.detach().double()
    return _entropy_bits(weights / weights.sum(-1, keepdim=True).clamp_min(1e-20))


def newly_chosen(before_NK: Chosen, after_NK: Chosen) -> Tensor:
    """Return which of the experts of each token it did not have before, [N, K]; order is no matter.

    The mean is the expert change rate, the share of assignments that do not match: 0 where every
    token keeps its experts, 1 where none keeps any.

    Source: CompeteSMoE paper, section 5.2.2 (b).
    """
    return (after_NK[:, :, None] != before_NK[:, None, :]).all(dim=-1)


def winners_picked(logits_NE: Logits, winners_NK: Chosen, experts: Tensor | None = None) -> Tensor:
    """Return which of each token's winners of the competition the router picks too, [N, K].

    Args:
        logits_NE: of the router, the largest of which are its picks where it has none of its own.
        winners_NK: who won the competition.
        experts: whom the router chose, with a selection bias where there is one; they are its picks
            where they are as many as the winners, and not all experts of a dense phase.
    """
    if experts is not None and experts.shape == winners_NK.shape:
        picked_NK = experts
    else:
        picked_NK = best(logits_NE.detach(), winners_NK.shape[1])
    return (winners_NK[:, :, None] == picked_NK[:, None, :]).any(dim=-1)


def _entropy_bits(shares: Tensor) -> Tensor:
    return -torch.xlogy(shares, shares).sum(dim=-1) / math.log(2)
