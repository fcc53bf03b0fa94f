"""From a gate's logits to sorted slots: chooses who computes."""

import torch
from torch import Tensor

from tsattn.ops import build
from tsattn.ops.routing import fused_cpu, reference


def softmax_rows(x_NE: Tensor) -> Tensor:
    """Return the softmax of every row, the same numbers as torch's up to rounding.

    Args:
        x_NE: a few numbers a row.

    Example:
        >>> softmax_rows(torch.zeros(2, 4)).sum(dim=1).tolist()
        [1.0, 1.0]
    """
    taken = fused_cpu if x_NE.ndim == 2 and _is_compiled(x_NE, torch.float32) else reference
    return taken.softmax_rows(x_NE)


def largest(scores_NE: Tensor, top_k: int) -> Tensor:
    """Return the indices [N, K] of the largest scores of each row, largest first.

    Of equal scores the lower index comes first. A NaN counts as the lowest score of all. There is
    no gradient.

    Args:
        scores_NE: a few scores a row.
        top_k: how many of them, 1 to all.

    Example:
        >>> largest(torch.tensor([[0.0, 2.0, 2.0, 1.0]]), 3).tolist()
        [[1, 2, 3]]
    """
    taken = fused_cpu if _is_compiled(scores_NE, torch.float32) else reference
    return taken.largest(scores_NE.detach(), top_k)


def sort_slots(chosen_NK: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Sort the slots by expert; those of one expert keep their order.

    Args:
        chosen_NK: the chosen experts of each token, int64; slot ``n K + k`` is the k-th of token n.
        num_experts: number E of experts.

    Returns:
        The numbers of the slots [N K], those of expert 0 first, and how many each expert has, [E].

    Example:
        >>> order, counts = sort_slots(torch.tensor([[2, 0], [0, 2]]), 3)
        >>> order.tolist(), counts.tolist()
        ([1, 2, 0, 3], [2, 0, 2])
    """
    taken = fused_cpu if _is_compiled(chosen_NK, torch.int64) else reference
    return taken.sort_slots(chosen_NK, num_experts)


def count_slots(chosen_NK: Tensor, num_experts: int) -> Tensor:
    """Return how many slots each expert has, [E]; also in compiled graphs.

    Args:
        chosen_NK: the chosen experts of each token, int64.
        num_experts: number E of experts.

    Example:
        >>> count_slots(torch.tensor([[2, 0], [0, 2]]), 3).tolist()
        [2, 0, 2]
    """
    return reference.count_slots(chosen_NK, num_experts)


def _is_compiled(x: Tensor, dtype: torch.dtype) -> bool:
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != dtype:
        return False
    return build.is_ready()
