"""What gates cost: appendix G, and free parameters by the rank of their Jacobian."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tsattn.nn.moe import (
    CosineGate,
    DenseToSparseGate,
    Gate,
    GaussianGate,
    HierarchicalGate,
    LinearGate,
    PerturbedCosineGate,
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    SigmoidGate,
    gate_cost,
    quadratic_overhead,
)
from tsattn.nn.moe.gates.overhead import quadratic_part

D, E = 6, 4


def redrawn(gate: Gate) -> Gate:
    """Move every parameter away from where it begins."""
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return gate


def test_appendix_g_for_mixtral_and_for_gpt2() -> None:
    mixtral = quadratic_overhead(4096, 8, rank=128, layers=32)
    assert mixtral.stored == 150_994_944  # the 151 M of the paper
    full = quadratic_overhead(4096, 8, layers=32)
    assert full.free == pytest.approx(2.1e9, rel=0.03)  # "almost 2.1B"
    assert full.free is not None
    assert full.stored == pytest.approx(2 * full.free, rel=1e-3)
    # "2.3M" of the paper does not follow from its formula: the keys alone come near it
    assert quadratic_overhead(768, 8, rank=32, layers=12).stored == 2_654_208
    assert 12 * 8 * 32 * 768 == 2_359_296


@pytest.mark.parametrize("rank", [None, 3, D])
def test_a_gate_costs_what_appendix_g_counts_beside_its_linear_terms(rank: int | None) -> None:
    gate = QuadraticMonomialGate(D, E, rank=rank)
    cost, terms = gate_cost(gate), quadratic_overhead(D, E, rank=rank)
    biases = E if rank is None else 0
    assert cost.stored == sum(p.numel() for p in gate.parameters()) == terms.stored + biases
    assert cost.free is not None
    assert cost.free - biases == terms.free
    assert cost.flops >= terms.flops


def directions(gate: Gate) -> int:
    """Return in how many directions the logits of a gate can move: the rank of the Jacobian."""
    x = torch.randn(300, gate.d_model).double()
    names = list(dict(gate.named_parameters()))

    def logits(*values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(gate, state, (x,)).flatten()

    jacobians = torch.autograd.functional.jacobian(logits, tuple(gate.parameters()))
    matrix = torch.cat([j.reshape(len(j), -1) for j in jacobians], dim=1)
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


@pytest.mark.parametrize("kind", [QuadraticMonomialGate, QuadraticPolynomialGate])
@pytest.mark.parametrize(
    ("width", "experts", "rank"),
    [
        *((6, 3, None), (6, 3, 1), (6, 3, 2), (6, 3, 3), (6, 3, 5), (6, 2, 5), (6, 4, 6)),
        *((8, 2, 6), (4, 1, 1), (4, 1, 2), (5, 1, 4), (3, 5, 2)),
    ],
)
def test_free_parameters_are_the_directions_that_logits_can_tell_apart(
    width: int,
    experts: int,
    rank: int | None,
    kind: type[QuadraticMonomialGate | QuadraticPolynomialGate],
) -> None:
    gate = redrawn(kind(width, experts, rank=rank).double())
    assert gate_cost(gate).free == directions(gate)


def test_free_parameters_of_high_rank_are_those_of_the_full_form_at_most() -> None:
    def free(kind: type[QuadraticMonomialGate | QuadraticPolynomialGate], *sizes: int) -> object:
        width, experts, rank = sizes
        return gate_cost(kind(width, experts, rank=rank)).free

    assert free(QuadraticMonomialGate, 6, 3, 5) == 63
    assert free(QuadraticMonomialGate, 6, 2, 5) == 42
    assert free(QuadraticMonomialGate, 8, 2, 6) == 72
    assert free(QuadraticPolynomialGate, 6, 4, 6) == 112
    assert free(QuadraticPolynomialGate, 8, 2, 6) == 90
    assert quadratic_overhead(6, 3, rank=5, layers=2).free == 2 * 63


@pytest.mark.parametrize(
    "gate",
    [
        *(LinearGate(D, E), SigmoidGate(D, E), GaussianGate(4, 3)),
        *(CosineGate(D, E, rank=3), CosineGate(D, E, rank=1), CosineGate(D, 2, rank=3)),
        *(PerturbedCosineGate(D, E, rank=3), PerturbedCosineGate(D, E, rank=1)),
        *(DenseToSparseGate(D, E), DenseToSparseGate(D, E, gate=CosineGate)),
    ],
    ids=str,
)
def test_free_parameters_of_other_gates_are_counted_too(gate: Gate) -> None:
    gate = redrawn(gate.double())
    assert gate_cost(gate).free == directions(gate)


def test_free_parameters_of_a_hierarchy_are_not_claimed_to_be_known() -> None:
    cost = gate_cost(HierarchicalGate(D, E))
    assert cost.free is None
    inner = gate_cost(LinearGate(D, E)).flops + gate_cost(LinearGate(D, 2)).flops
    assert inner < cost.flops < 2 * inner


def test_the_quadratic_part_is_found_inside_other_gates() -> None:
    assert quadratic_part(LinearGate(D, E)) is None
    assert quadratic_part(QuadraticPolynomialGate(D, E)) == quadratic_overhead(D, E)
    low = partial(QuadraticMonomialGate, rank=2)
    assert quadratic_part(DenseToSparseGate(D, E, gate=low)) == quadratic_overhead(D, E, rank=2)
    both = quadratic_part(HierarchicalGate(D, E, groups_gate=low, experts_gate=low))
    two, four = (quadratic_overhead(D, number, rank=2) for number in (2, E))
    assert both == tuple(a + b for a, b in zip(two, four, strict=True))  # pyright: ignore


def test_an_overhead_of_no_rank_is_refused() -> None:
    for rank in (0, D + 1):
        with pytest.raises(ValueError, match=f"got rank={rank} for d_model={D}"):
            quadratic_overhead(D, E, rank=rank)


def test_a_foreign_gate_counts_two_operations_a_number() -> None:
    assert gate_cost(nn.Linear(D, E)) == (D * E + E, None, 2 * (D * E + E))
