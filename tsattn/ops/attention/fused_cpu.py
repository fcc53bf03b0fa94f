"""Active attention in one compiled CPU kernel: no [Q, K] tensor but the scores one asks for.

The forward pass keeps two numbers per query, the largest score and the inverse sum of exponentials;
the backward pass computes the weights again from them, and draws the dropout mask again from its
seed. Scores are returned as a view of [batch, heads, keys, queries], the order the kernel works in,
and read fastest that way.
"""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

from tsattn.ops.activations import VALUE_ACTIVATIONS
from tsattn.ops.dropout.philox import draw_seed

NUMBERS = {name: number for number, name in enumerate(VALUE_ACTIVATIONS)}
"""How the kernels number the activations."""

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::attention_forward",
    "(Tensor q, Tensor k, Tensor v, Tensor? prev_scores, Tensor? bias, Tensor? seed, "
    "int activation, bool is_causal, bool return_scores, float dropout_p, float scale) "
    "-> (Tensor output, Tensor scores, Tensor stats)",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::attention_backward",
    "(Tensor grad_output, Tensor? grad_scores, Tensor q, Tensor k, Tensor v, Tensor? prev_scores, "
    "Tensor? bias, Tensor? seed, Tensor output, Tensor stats, int activation, bool is_causal, "
    "float dropout_p, float scale, bool has_scores, bool need_prev, bool need_bias) "
    "-> (Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_prev, Tensor grad_bias)",
    tags=_TAGS,
)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    activation: str,
    prev_scores: Tensor | None,
    return_scores: bool,
    mask: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    """Compute ``softmax(scale * Q K' + prev_scores + mask) activation(V)`` with one call.

    Args as in `tsattn.ops.active_attention`; ``activation`` is one of the six names. Scores are
    float32 inside, whatever the dtype of the inputs, and have the dtype of the inputs where they
    are handed on.
    """
    seed = draw_seed() if dropout_p > 0 else None
    prev = prev_scores
    if prev is not None and prev.dtype not in (torch.float32, q.dtype):
        prev = prev.to(torch.float32)
    output, scores, _ = torch.ops.tsattn.attention_forward(
        q, k, v, prev, _as_bias(mask), seed, NUMBERS[activation], is_causal, return_scores,
        dropout_p, scale,
    )  # fmt: skip
    return output, scores if return_scores else None


def obstacle(q: Tensor, k: Tensor, v: Tensor) -> str:
    """Say why the kernel cannot take these tensors, or nothing."""
    if q.device.type != "cpu":
        return f"it runs on cpu, the tensors are on {q.device}"
    if q.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16, not {q.dtype}"
    return ""


def _as_bias(mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    else:
        bias = mask.to(torch.float32)
    return bias.view((1,) * (4 - bias.ndim) + tuple(bias.shape))


def _heads_like(x: Tensor, length: int, width: int) -> Tensor:
    return x.new_empty(x.shape[0], length, x.shape[1], width).transpose(1, 2)


def _plane_like(wanted: bool, q: Tensor, k: Tensor, dtype: torch.dtype) -> Tensor:
    if not wanted:
        return q.new_empty(0, dtype=dtype)
    shape = (*q.shape[:2], k.shape[2], q.shape[2])
    return q.new_empty(shape, dtype=dtype).transpose(2, 3)


@torch.library.register_fake("tsattn::attention_forward")
def _forward_fake(
    q: Tensor, k: Tensor, v: Tensor, prev_scores: Any, bias: Any, seed: Any, activation: int,
    is_causal: bool, return_scores: bool, dropout_p: float, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    stats = q.new_empty((2, *q.shape[:3]), dtype=torch.float32)
    scores = _plane_like(return_scores, q, k, q.dtype)
    return _heads_like(v, q.shape[2], v.shape[3]), scores, stats


@torch.library.register_fake("tsattn::attention_backward")
def _backward_fake(
    grad_output: Tensor, grad_scores: Any, q: Tensor, k: Tensor, v: Tensor, prev_scores: Any,
    bias: Any, seed: Any, output: Tensor, stats: Tensor, activation: int, is_causal: bool,
    dropout_p: float, scale: float, has_scores: bool, need_prev: bool, need_bias: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    heads = (_heads_like(x, x.shape[2], x.shape[3]) for x in (q, k, v))
    grad_prev = _plane_like(
        need_prev, q, k, torch.float32 if prev_scores is None else prev_scores.dtype
    )
    return (*heads, grad_prev, _plane_like(need_bias, q, k, torch.float32))
