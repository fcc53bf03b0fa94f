"""From logits to sorted slots: the compiled kernels against plain torch."""

import pytest
import torch
from torch import library

from tests.budget import assert_within_budget
from tsattn.ops import count_slots, largest, softmax_rows, sort_slots
from tsattn.ops.routing import reference

ROWS = [(1, 1), (5, 8), (1030, 17), (0, 4)]


@pytest.mark.needs_kernels
@pytest.mark.parametrize("shape", ROWS[:3], ids=str)
def test_softmax_and_its_gradient_stay_within_the_error_budget(shape: tuple[int, int]) -> None:
    given = {"x": torch.randn(shape) * 5}
    assert_within_budget(
        lambda x: torch.ops.tsattn.softmax_rows(x), lambda x: x.softmax(dim=-1), given
    )


@pytest.mark.needs_kernels
def test_softmax_of_large_small_and_equal_numbers() -> None:
    x = torch.tensor([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0], [-1e30, -1e30, 0.0]])
    torch.testing.assert_close(torch.ops.tsattn.softmax_rows(x), x.softmax(dim=-1))


@pytest.mark.needs_kernels
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_the_largest_are_those_of_the_reference(shape: tuple[int, int]) -> None:
    scores = torch.randint(-3, 3, shape).float()  # many are equal
    scores[torch.rand(shape) < 0.2] = torch.nan
    scores[torch.rand(shape) < 0.2] = -torch.inf
    scores[torch.rand(shape) < 0.1] = torch.inf
    for top_k in {1, min(2, shape[1]), shape[1]}:
        expected = reference.largest(scores, top_k)
        assert torch.equal(torch.ops.tsattn.largest(scores, top_k), expected)
        assert torch.equal(largest(scores, top_k), expected)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("experts", [1, 7, 300])
@pytest.mark.parametrize("tokens", [0, 1, 2000])
def test_slots_are_sorted_as_the_reference_sorts_them(tokens: int, experts: int) -> None:
    chosen = torch.randint(0, experts, (tokens, 2))
    expected = reference.sort_slots(chosen, experts)
    for found in (sort_slots(chosen, experts), torch.ops.tsattn.sort_slots(chosen, experts)):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(count_slots(chosen, experts), expected[1])


@pytest.mark.needs_kernels
def test_they_are_registered_as_torch_wants_it() -> None:
    x = torch.randn(9, 5)
    library.opcheck(torch.ops.tsattn.softmax_rows.default, (x.clone().requires_grad_(),))
    library.opcheck(torch.ops.tsattn.largest.default, (x, 2))
    library.opcheck(torch.ops.tsattn.sort_slots.default, (torch.randint(0, 4, (9, 2)), 4))


@pytest.mark.needs_kernels
def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(RuntimeError, match="between 1 and 3 of them, got 4"):
        torch.ops.tsattn.largest(torch.zeros(2, 3), 4)
    with pytest.raises(RuntimeError, match="there is no expert 5"):
        torch.ops.tsattn.sort_slots(torch.tensor([[0, 5]]), 5)
    with pytest.raises(RuntimeError, match="expected float32 rows"):
        torch.ops.tsattn.softmax_rows(torch.zeros(3))


def test_float64_goes_to_torch() -> None:
    x = torch.randn(4, 3).double()
    assert torch.equal(softmax_rows(x), x.softmax(dim=-1))
    assert torch.equal(largest(x, 1)[:, 0], x.argmax(dim=-1))
