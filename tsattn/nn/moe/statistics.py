"""What routing looked like: load and entropies."""

import math

import torch
from torch import Tensor

from tsattn.tensors import ExpertCounts, Weights


def load_share(counts_E: ExpertCounts) -> Tensor:
    """Return the share of all slots that each expert got, [E]; the sum is one."""
    return counts_E.double() / counts_E.sum().clamp_min(1)


def selection_entropy(counts_E: ExpertCounts) -> float:
    """Return the entropy of the load in bits: 0 for one expert alone, log2 E for equal load.

    Source: CompeteSMoE paper, appendix D (a), which gives 2 as the maximum for four experts.
    """
    return _entropy_bits(load_share(counts_E)).item()


def weight_entropy(weights_NK: Weights) -> float:
    """Return the mean entropy in bits of the tokens' weights, each scaled to the sum one.

    Source: CompeteSMoE paper, appendix D (b).
    """
    weights = weights_NK.detach().double()
    return _entropy_bits(weights / weights.sum(-1, keepdim=True).clamp_min(1e-20)).mean().item()


def _entropy_bits(shares: Tensor) -> Tensor:
    return -torch.xlogy(shares, shares).sum(dim=-1) / math.log(2)
