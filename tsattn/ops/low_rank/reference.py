"""Quadratic logits of low rank in plain torch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def low_rank_logits(x_ND: Tensor, maps_MD: Tensor, bias_M: Tensor | None, rank: int) -> Tensor:
    """Return query times key of every expert, [N, E]."""
    projected = F.linear(x_ND, maps_MD, bias_M)
    query, keys = projected[:, :rank], projected[:, rank:].reshape(x_ND.shape[0], -1, rank)
    return torch.bmm(keys, query[:, :, None]).squeeze(2)
