"""What a gate costs: numbers stored, numbers free, operations per token."""

from typing import NamedTuple

from torch import nn

from tsattn.nn.moe.gates.base import Gate


class GateCost(NamedTuple):
    """The size of a gate, or of its quadratic part.

    Attributes:
        stored: numbers that are stored and trained.
        free: how many of them the logits can tell apart.
        flops: multiplications and additions for one token.
    """

    stored: int
    free: int
    flops: int


def gate_cost(gate: nn.Module) -> GateCost:
    """Return what a gate stores and computes; of one that does not say, two operations a number."""
    if isinstance(gate, Gate):
        return GateCost(gate.stored_parameters, gate.free_parameters, gate.flops_per_token)
    stored = sum(parameter.numel() for parameter in gate.parameters())
    return GateCost(stored, stored, 2 * stored)


def quadratic_overhead(
    d_model: int, num_experts: int, *, rank: int | None = None, layers: int = 1
) -> GateCost:
    """Return what quadratic terms add to the gates of a network.

    Full: N D^2 numbers stored per layer, of which N D (D + 1) / 2 are free. Low rank:
    (N + 1) R D, one query map and N key maps; the logits are the same for ``M Wq`` and
    ``M^-T Wk_i`` with M invertible and for ``Wk_i + S_i Wq`` with S_i antisymmetric, which leaves
    R^2 + N R (R - 1) / 2 fewer free.

    Mixtral 8x7B (D 4096, N 8, 32 layers) at rank 128 gives the 151 M of the paper. Its figure for
    GPT-2 (D 768, N 8, 12 layers, rank 32: "2.3 M") does not follow from the same formula, which
    gives 2.65 M; 2.36 M are the N key maps without the query.

    Args:
        d_model: width D of a token.
        num_experts: number N of experts.
        rank: rank R; ``None`` means the full form.
        layers: number of layers with such a gate.

    Source: active-attention paper, appendix G.
    """
    d, n = d_model, num_experts
    if rank is None:
        stored, free, products = n * d * d, n * d * (d + 1) // 2, n * d
    else:
        stored = (n + 1) * rank * d
        free = stored - rank**2 - n * rank * (rank - 1) // 2
        products = n * rank
    return GateCost(layers * stored, layers * free, layers * 2 * (stored + products))
