"""Active attention as the equation says it: the oracle of every other implementation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.attention.masking import masked_softmax


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
    """Compute ``softmax(scale * Q K' + prev_scores + mask) V``, in float32 or, if given, float64.

    Args as in `tsattn.ops.active_attention`; ``v`` comes activated. Returns the output and, where
    asked for, the scores before masking, both in the dtype of the inputs.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = scale * (q.to(wide) @ k.to(wide).transpose(-2, -1))
    if prev_scores is not None:
        scores = scores + prev_scores.to(wide)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(wide)
    weights = F.dropout(masked_softmax(scores, mask, is_causal), dropout_p)
    output = weights @ v.to(wide)  # eq. 20
    return output.to(v.dtype), scores.to(q.dtype) if return_scores else None
