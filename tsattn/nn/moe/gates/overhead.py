"""What a gate costs: numbers stored, numbers free, operations per token."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from tsattn.nn.moe.gates.base import Gate, check_rank
from tsattn.nn.moe.gates.quadratic import (
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    free_of_low_rank,
)


class GateCost(NamedTuple):
    """The size of a gate, or of its quadratic part.

    Attributes:
        stored: numbers that are stored and trained.
        free: how many of them the logits can tell apart, the rank of their Jacobian where numbers
            are in general position; None where nobody has counted them.
        flops: multiplications and additions for one token.
    """

    stored: int
    free: int | None
    flops: int


def gate_cost(gate: nn.Module) -> GateCost:
    """Return what a gate stores and computes; of one that does not say, two operations a number."""
    if isinstance(gate, Gate):
        return GateCost(gate.stored_parameters, gate.free_parameters, gate.flops_per_token)
    stored = sum(parameter.numel() for parameter in gate.parameters())
    return GateCost(stored, None, 2 * stored)


def total_cost(costs: Iterable[GateCost]) -> GateCost:
    """Return the sum of costs, whose free numbers are known where all of theirs are."""
    parts = list(costs)
    free = [cost.free for cost in parts if cost.free is not None]
    return GateCost(
        sum(cost.stored for cost in parts),
        sum(free) if len(free) == len(parts) else None,
        sum(cost.flops for cost in parts),
    )


def quadratic_part(gate: nn.Module) -> GateCost | None:
    """Return what the quadratic terms of a gate cost, or of those it is built from, else None."""
    kinds = (QuadraticMonomialGate, QuadraticPolynomialGate)
    costs = [
        quadratic_overhead(part.d_model, part.num_experts, rank=part.rank)
        for part in gate.modules()
        if isinstance(part, kinds)
    ]
    return total_cost(costs) if costs else None


def quadratic_overhead(
    d_model: int, num_experts: int, *, rank: int | None = None, layers: int = 1
) -> GateCost:
    """Return what quadratic terms add to the gates of a network.

    Full: N D^2 numbers stored per layer, of which N D (D + 1) / 2 are free. Low rank:
    (N + 1) R D, one query map and N key maps, of which the logits can tell R^2 + N R (R - 1) / 2
    fewer apart, and never more than of the full form.

    Mixtral 8x7B (D 4096, N 8, 32 layers) at rank 128 gives the 151 M of the paper. Its figure for
    GPT-2 (D 768, N 8, 12 layers, rank 32: "2.3 M") does not follow from the same formula, which
    gives 2.65 M; 2.36 M are the N key maps without the query.

    Args:
        d_model: width D of a token.
        num_experts: number N of experts.
        rank: rank R; ``None`` means the full form.
        layers: number of layers with such a gate.

    Raises:
        ValueError: a rank outside 1..D.

    Source: active-attention paper, appendix G.
    """
    d, n = d_model, num_experts
    if rank is None:
        stored, free, products = n * d * d, n * d * (d + 1) // 2, n * d
    else:
        check_rank(rank, d)
        stored, products = (n + 1) * rank * d, n * rank
        free = free_of_low_rank(d, n, rank)
    return GateCost(layers * stored, layers * free, layers * 2 * (stored + products))
