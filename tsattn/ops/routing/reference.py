"""The choice of experts in plain torch."""

import torch
from torch import Tensor


def softmax_rows(x_NE: Tensor) -> Tensor:
    """Return the softmax of every row."""
    return x_NE.softmax(dim=-1)


def largest(scores_NE: Tensor, top_k: int) -> Tensor:
    """Return the indices [N, K] of the largest scores of each row, largest first."""
    lowest = torch.finfo(scores_NE.dtype).min  # above what marks a score that is taken
    scores = scores_NE.nan_to_num(nan=lowest, posinf=torch.inf, neginf=lowest)
    if top_k > 4 and not torch.compiler.is_exporting():  # ONNX has no sort that is stable
        return scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    taken: list[Tensor] = []
    # `topk` leaves open which of equal scores it takes, a maximum is the first one
    for _ in range(top_k):
        winner = scores.argmax(dim=-1, keepdim=True)
        taken.append(winner)
        scores = scores.scatter(1, winner, -torch.inf)
    return torch.cat(taken, dim=1)


def sort_slots(chosen_NK: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Return the slots sorted by expert, and how many each has."""
    flat = chosen_NK.flatten()
    small = flat.to(torch.uint8) if num_experts <= 256 else flat  # much faster to sort
    return small.argsort(stable=True), count_slots(chosen_NK, num_experts)


def count_slots(chosen_NK: Tensor, num_experts: int) -> Tensor:
    """Return how many slots each expert has."""
    if not torch.compiler.is_compiling():
        return torch.bincount(chosen_NK.flatten(), minlength=num_experts)
    everyone = torch.arange(num_experts, device=chosen_NK.device)
    return (chosen_NK.flatten()[:, None] == everyone).sum(dim=0)
