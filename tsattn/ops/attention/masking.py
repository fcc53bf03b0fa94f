"""Masks as scores: what a query may not look at is minus infinity."""

import torch
from torch import Tensor


def masked_softmax(scores_BNQK: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Softmax over the keys a query may look at; a query without any key gets zero weights.

    Args:
        scores_BNQK: raw scores.
        mask: boolean (True: may look) or additive, broadcasting to the scores.
        is_causal: query ``i`` looks at keys ``0..i`` only.

    Returns:
        Weights [B, N, Q, K] that sum to one, or to zero where no key is left; neither they nor
        their gradients are ever NaN.
    """
    if mask is None and not is_causal:
        return torch.softmax(scores_BNQK, dim=-1)
    scores = scores_BNQK
    if is_causal:
        scores = scores.masked_fill(
            ~causal(scores.shape[-2], scores.shape[-1], scores.device), float("-inf")
        )
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    nothing_left = (scores == float("-inf")).all(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(nothing_left, 0.0), dim=-1)
    return weights.masked_fill(nothing_left, 0.0)


def causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return the boolean mask [Q, K] that lets query ``i`` look at keys ``0..i``."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
