"""Quadratic logits of low rank: chooses an implementation and calls it."""

from torch import Tensor

from tsattn.ops import build
from tsattn.ops.impl import Impl, as_impl
from tsattn.ops.low_rank import fused_cpu, reference


def low_rank_logits(
    x_ND: Tensor,
    maps_MD: Tensor,
    bias_M: Tensor | None,
    rank: int,
    *,
    impl: str | Impl = Impl.AUTO,
) -> Tensor:
    """Compute ``(Wq x + bq) . (Wk_e x + bk_e)`` for every token and expert, [N, E].

    The compiled kernel keeps query and keys of a tile of tokens in the cache, stores none of them,
    and computes them again in the backward pass.

    Args:
        x_ND: tokens.
        maps_MD: ``Wq`` and the ``Wk_e`` below each other, M = R + E R rows.
        bias_M: ``bq`` and the ``bk_e``; ``None`` for none.
        rank: rows R of the query and of a key.
        impl: ``auto``, ``reference`` or ``cpu``.

    Raises:
        ValueError: shapes that do not fit, or an impl that this operation does not have or that
            cannot take these tensors.

    Example:
        >>> low_rank_logits(torch.randn(5, 16), torch.randn(2 + 3 * 2, 16), None, 2).shape
        torch.Size([5, 3])
    """
    rows = len(maps_MD)
    if rank < 1 or rows <= rank or rows % rank or x_ND.shape[1:] != maps_MD.shape[1:]:
        raise ValueError(
            f"expected tokens [N, D] and maps [R + E R, D] of rank R={rank}, got "
            f"{list(x_ND.shape)} and {list(maps_MD.shape)}"
        )
    if bias_M is not None and bias_M.shape != (rows,):
        raise ValueError(f"expected a bias for each of {rows} rows, got {list(bias_M.shape)}")
    chosen = as_impl(impl)
    if chosen not in (Impl.AUTO, Impl.CPU, Impl.REFERENCE):
        raise ValueError(
            f"low_rank_logits has no impl {chosen.value!r}; expected auto, reference or cpu"
        )
    tensors = (x_ND, maps_MD) if bias_M is None else (x_ND, maps_MD, bias_M)
    hindrance = fused_cpu.obstacle(*tensors)
    if chosen is Impl.REFERENCE or (chosen is Impl.AUTO and (hindrance or not build.is_ready())):
        return reference.low_rank_logits(x_ND, maps_MD, bias_M, rank)
    if hindrance:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {hindrance}")
    build.ensure()
    return fused_cpu.low_rank_logits(x_ND, maps_MD, bias_M, rank)
