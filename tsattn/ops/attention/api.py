"""The one way in: checks the arguments, chooses an implementation, calls it."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tsattn.ops import build
from tsattn.ops.activations import ValueActivation, activate, as_function
from tsattn.ops.attention import fused_cpu
from tsattn.ops.attention.reference import attend as attend_reference
from tsattn.ops.attention.sdpa import attend as attend_sdpa
from tsattn.ops.attention.triton_op import attend as attend_triton
from tsattn.ops.impl import Impl, as_impl, require_triton, triton_is_wanted
from tsattn.tensors import Keys, Mask, Queries, Scores, Values

_IMPLEMENTATIONS: dict[Impl, Callable[..., tuple[Tensor, Tensor | None]]] = {
    Impl.REFERENCE: attend_reference,
    Impl.SDPA: attend_sdpa,
}
"""These take values that went through the activation."""

_FUSED: dict[Impl, Callable[..., tuple[Tensor, Tensor | None]]] = {
    Impl.CPU: fused_cpu.attend,
    Impl.TRITON: attend_triton,
}
"""These apply the six named activations themselves."""


def active_attention(
    q_BNQW: Queries,
    k_BNKW: Keys,
    v_BNKV: Values,
    *,
    activation: ValueActivation = "identity",
    prev_scores: Scores | None = None,
    return_scores: bool = False,
    mask: Mask | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    impl: str | Impl = Impl.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend to activated values: ``softmax(scale * Q K' + prev_scores + mask) activation(V)``.

    Args:
        q_BNQW: queries, [batch, heads, queries, head width].
        k_BNKW: keys, [batch, heads, keys, head width].
        v_BNKV: values, [batch, heads, keys, value width].
        activation: the elementwise nonlinearity of the values: ``identity``, ``relu``, ``gelu``,
            ``silu``, ``tanh``, ``sigmoid``, or any callable.
        prev_scores: scores of the layer before, added before the softmax, [B, N, Q, K].
        return_scores: also return ``scale * Q K' + prev_scores``, before any mask. With
            ``prev_scores`` they may be kept for the backward pass, which then refuses them, as
            torch does, where they were changed in place.
        mask: broadcasts to [B, N, Q, K]. Boolean: True where a query may look at a key. Floating:
            added to the scores. A query that may look at no key gives zeros, and zero gradients.
        is_causal: query ``i`` looks at keys ``0..i`` only (counted from the first key).
        dropout_p: probability with which an attention weight is dropped, in [0, 1).
        scale: factor of ``Q K'``; ``None`` means ``head width ** -0.5``.
        impl: ``auto``, ``reference``, ``sdpa``, ``cpu`` or ``triton``; see
            `tsattn.ops.availability`. ``auto`` takes ``triton`` or ``cpu`` where the tensors lie
            and the kernels can run, and ``sdpa`` elsewhere.

    Returns:
        The output [B, N, Q, value width], in the dtype of ``v``; with ``return_scores`` a pair of
        the output and the scores [B, N, Q, K].

    Raises:
        ValueError: shapes, devices or dtypes that do not fit, an unknown activation or impl, an
            activation that changes the shape of the values, a dropout outside [0, 1).

    Source: equation 20 of the active-attention paper. Departures: previous scores (residual
    attention, as in the published PatchTST code), masks and dropout.

    Example:
        >>> q = k = v = torch.randn(2, 4, 42, 16)
        >>> active_attention(q, k, v, activation="tanh").shape
        torch.Size([2, 4, 42, 16])
    """
    _check(q_BNQW, k_BNKW, v_BNKV, prev_scores, mask, dropout_p)
    as_function(activation)  # a name is one of the six
    chosen = _choose(as_impl(impl), q_BNQW, k_BNKW, v_BNKV)
    if chosen in _FUSED and isinstance(activation, str):
        attend, values = partial(_FUSED[chosen], activation=activation), v_BNKV
    else:
        attend = _IMPLEMENTATIONS.get(chosen) or partial(_FUSED[chosen], activation="identity")
        values = activate(activation, v_BNKV)
    output, scores = attend(
        q_BNQW,
        k_BNKW,
        values,
        prev_scores=prev_scores,
        return_scores=return_scores,
        mask=mask,
        is_causal=is_causal,
        dropout_p=dropout_p,
        scale=q_BNQW.shape[-1] ** -0.5 if scale is None else scale,
    )
    return output if scores is None else (output, scores)


def _choose(impl: Impl, q: Tensor, k: Tensor, v: Tensor) -> Impl:
    if impl is Impl.CPU:
        if obstacle := fused_cpu.obstacle(q, k, v):
            raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
        build.ensure()
    if impl is Impl.TRITON:
        require_triton(q.device, q.dtype)
    if impl is not Impl.AUTO:
        return impl
    if triton_is_wanted(q.device, q.dtype):
        return Impl.TRITON
    return Impl.CPU if not fused_cpu.obstacle(q, k, v) and build.is_ready() else Impl.SDPA


def _check(
    q: Tensor, k: Tensor, v: Tensor, prev_scores: Tensor | None, mask: Tensor | None, p: float
) -> None:
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if not (q.ndim == k.ndim == v.ndim == 4):
        raise ValueError(f"expected q, k, v of [batch, heads, length, width], got {shapes}")
    if q.shape[:2] != k.shape[:2] or k.shape[:3] != v.shape[:3] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "q and k must share batch, heads and width, k and v batch, heads and length; "
            f"got {shapes}"
        )
    if q.shape[3] == 0:
        raise ValueError(f"q and k must be at least one wide, got {shapes}")
    if not (q.dtype == k.dtype == v.dtype) or not (q.device == k.device == v.device):
        what = ", ".join(f"{t.dtype} on {t.device}" for t in (q, k, v))
        raise ValueError(f"q, k and v must share dtype and device, got {what}")
    if not q.is_floating_point():
        raise ValueError(f"q, k and v must be floating, got {q.dtype}")
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1), got {p}")
    full = torch.Size((*q.shape[:3], k.shape[2]))
    if prev_scores is not None and prev_scores.shape != full:
        raise ValueError(f"prev_scores must be {list(full)}, got {list(prev_scores.shape)}")
    if mask is not None and not _broadcasts(mask.shape, full):
        raise ValueError(f"mask must broadcast to {list(full)}, got {list(mask.shape)}")
    if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(
            f"mask must be boolean (True: may look) or floating (added), got {mask.dtype}"
        )
    if prev_scores is not None and not prev_scores.is_floating_point():
        raise ValueError(f"prev_scores must be floating, got {prev_scores.dtype}")
    for name, tensor in (("prev_scores", prev_scores), ("mask", mask)):
        if tensor is not None and tensor.device != q.device:
            raise ValueError(f"{name} must be on {q.device}, as q is, and is on {tensor.device}")


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    padded = (1,) * (len(target) - len(shape)) + tuple(shape)
    return len(shape) <= len(target) and all(
        have in (1, want) for have, want in zip(padded, target, strict=True)
    )
