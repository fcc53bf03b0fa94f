"""Active attention through torch's own attention: the best plain-torch path."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.attention.masking import causal, masked_softmax


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    prev_scores: Tensor | None,
    return_scores: bool,
    mask: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    """Let torch attend; previous scores go in as an additive mask.

    Args as in `tsattn.ops.active_attention`; ``v`` comes activated. Torch's attention keeps its
    scores to itself: where they are asked for, products and softmax are called one by one.
    """
    unlike = q.shape[-1] != v.shape[-1] and q.device.type == "cpu"  # torch has no fast path for it
    if return_scores or unlike:
        scores = _scores(q, k, prev_scores, scale)
        weights = F.dropout(masked_softmax(scores, mask, is_causal), dropout_p)
        return weights.to(v.dtype) @ v, scores if return_scores else None
    alone = prev_scores is None and mask is None
    bias = None if alone else _bias(q, k, prev_scores, mask, is_causal)
    causal_alone = is_causal and alone
    output = F.scaled_dot_product_attention(
        q, k, v, bias, dropout_p, is_causal=causal_alone, scale=scale
    )
    return output, None


def _scores(q: Tensor, k: Tensor, prev_scores: Tensor | None, scale: float) -> Tensor:
    if prev_scores is None:
        return (q * scale) @ k.transpose(-2, -1)
    products = torch.baddbmm(
        prev_scores.to(q.dtype).flatten(0, 1),
        q.flatten(0, 1),
        k.flatten(0, 1).transpose(1, 2),
        alpha=scale,
    )
    return products.view_as(prev_scores)


def _bias(
    q: Tensor, k: Tensor, prev_scores: Tensor | None, mask: Tensor | None, is_causal: bool
) -> Tensor:
    bias = q.new_zeros(1, 1) if prev_scores is None else prev_scores.to(q.dtype)
    if is_causal:
        bias = bias.masked_fill(~causal(q.shape[-2], k.shape[-2], q.device), float("-inf"))
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, float("-inf"))
    return bias + mask.to(q.dtype)
