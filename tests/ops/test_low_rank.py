"""Quadratic logits of low rank in one operation: error budget, threads, registration, messages."""

import pytest
import torch
from torch import Tensor, library

from tests.budget import assert_within_budget
from tsattn.ops import low_rank_logits
from tsattn.ops.low_rank import reference

SHAPES = [(1, 16, 1, 1), (47, 48, 3, 5), (1003, 16, 8, 8), (500, 128, 4, 3)]
"""Tokens, width, rank, experts."""


def inputs(tokens: int, width: int, rank: int, experts: int) -> dict[str, Tensor]:
    rows = rank * (1 + experts)
    return {
        "x_ND": torch.randn(tokens, width),
        "maps_MD": torch.randn(rows, width) / width**0.5,
        "bias_M": torch.randn(rows),
    }


@pytest.mark.needs_kernels
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_logits_and_gradients_stay_within_the_error_budget(
    shape: tuple[int, int, int, int], with_bias: bool
) -> None:
    given = inputs(*shape)
    if not with_bias:
        del given["bias_M"]

    def fused(x_ND: Tensor, maps_MD: Tensor, bias_M: Tensor | None = None) -> Tensor:
        return low_rank_logits(x_ND, maps_MD, bias_M, shape[2], impl="cpu")

    def plain(x_ND: Tensor, maps_MD: Tensor, bias_M: Tensor | None = None) -> Tensor:
        return low_rank_logits(x_ND, maps_MD, bias_M, shape[2], impl="reference")

    assert_within_budget(fused, plain, given)


def test_the_reference_is_query_times_key() -> None:
    x, maps, bias = (t.double() for t in inputs(6, 16, 2, 3).values())
    query, *keys = (maps @ x.T + bias[:, None]).view(4, 2, 6)
    expected = torch.stack([(query * key).sum(dim=0) for key in keys], dim=1)
    torch.testing.assert_close(reference.low_rank_logits(x, maps, bias, 2), expected)


@pytest.mark.needs_kernels
def test_the_number_of_threads_changes_nothing() -> None:
    x, maps, bias = (t.requires_grad_() for t in inputs(4000, 16, 8, 8).values())
    found: list[tuple[Tensor, ...]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logits = low_rank_logits(x, maps, bias, 8, impl="cpu")
            found.append((logits, *torch.autograd.grad(logits.square().sum(), (x, maps, bias))))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.needs_kernels
def test_it_is_registered_as_torch_wants_it() -> None:
    x, maps, bias = (t.requires_grad_() for t in inputs(9, 16, 2, 3).values())
    for given in ((x, maps, bias, 2), (x, maps, None, 2)):
        library.opcheck(torch.ops.tsattn.low_rank_logits.default, given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 5}, r"of rank R=5, got \[4, 16\] and \[8, 16\]"),
        ({"rank": 8}, "of rank R=8"),
        ({"bias_M": torch.zeros(3)}, r"each of 8 rows, got \[3\]"),
        ({"impl": "sdpa"}, "no impl 'sdpa'"),
        ({"impl": "cpu", "x_ND": torch.zeros(4, 16).double()}, "not torch.float64"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {**inputs(4, 16, 2, 3), "rank": 2, **change}
    with pytest.raises(ValueError, match=message):
        low_rank_logits(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.needs_kernels
def test_other_widths_go_to_torch() -> None:
    x, maps, bias = inputs(4, 10, 2, 3).values()
    torch.testing.assert_close(
        low_rank_logits(x, maps, bias, 2), reference.low_rank_logits(x, maps, bias, 2)
    )
    with pytest.raises(ValueError, match="multiple of 16, not 10"):
        low_rank_logits(x, maps, bias, 2, impl="cpu")
