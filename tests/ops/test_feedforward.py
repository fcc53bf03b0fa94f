"""The fused feed-forward: error budget, mask, determinism, registration, messages."""

# pyright: reportArgumentType=false, reportCallIssue=false

import pytest
import torch
from torch import Tensor, library
from torch.nn import functional as F

from tests.budget import assert_within_budget
from tsattn.ops import dropout, feedforward
from tsattn.ops.feedforward import reference

SHAPES = [((1,), 16, 1), ((47,), 16, 40), ((3, 49), 32, 20), ((2, 500), 16, 128)]


def inputs(rows: tuple[int, ...], width: int, hidden: int) -> dict[str, Tensor]:
    return {
        "x": torch.randn(*rows, width),
        "expand_weight": torch.randn(hidden, width) / 4,
        "expand_bias": torch.randn(hidden),
        "contract_weight": torch.randn(width, hidden) / 4,
        "contract_bias": torch.randn(width),
    }


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "width", "hidden"), SHAPES)
def test_output_and_gradients_stay_within_the_error_budget(
    rows: tuple[int, ...], width: int, hidden: int, p: float
) -> None:
    seed = torch.tensor(2**40 + 3) if p else None

    def fused(**given: Tensor) -> Tensor:
        return torch.ops.tsattn.feedforward(*given.values(), seed, p)

    def plain(**given: Tensor) -> Tensor:
        return reference.feedforward(*given.values(), seed, p)

    assert_within_budget(fused, plain, inputs(rows, width, hidden))


def test_without_dropout_it_is_two_linear_maps_around_an_exact_gelu() -> None:
    given = inputs((5, 7), 16, 24)
    x, w1, b1, w2, b2 = given.values()
    expected = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)
    for impl in ("auto", "reference"):
        torch.testing.assert_close(feedforward(**given, impl=impl), expected)


def test_the_gradients_of_the_reference_are_those_of_its_formula() -> None:
    given = [t.double().requires_grad_() for t in inputs((3,), 2, 4).values()]
    seed = torch.tensor(5)
    assert torch.autograd.gradcheck(lambda *t: reference.feedforward(*t, seed, 0.4), given)


@pytest.mark.parametrize(
    "impl", ["reference", pytest.param("cpu", marks=pytest.mark.needs_kernels)]
)
def test_hidden_units_are_dropped_at_the_rate_and_the_seed_decides(impl: str) -> None:
    rows, hidden, p = 3000, 64, 0.25
    first = torch.zeros(hidden, 16)
    second = torch.zeros(16, hidden)
    ones, zeros = torch.full((hidden,), 30.0), torch.zeros(16)  # gelu(30) is 30
    second[0] = 1 / (30 * hidden)

    def kept() -> Tensor:
        x = torch.zeros(rows, 16)
        return feedforward(x, first, ones, second, zeros, p=p, impl=impl)[:, 0]

    torch.manual_seed(1)
    one, two = kept(), kept()
    torch.manual_seed(1)
    assert torch.equal(kept(), one)
    assert not torch.equal(one, two)
    assert one.mean().item() == pytest.approx(1.0, abs=0.01)
    assert one.var().item() == pytest.approx(p / (1 - p) / hidden, rel=0.15)
    assert torch.corrcoef(torch.stack([one, two]))[0, 1].abs() < 0.1


@pytest.mark.needs_kernels
def test_the_number_of_threads_changes_nothing() -> None:
    given = {name: t.requires_grad_() for name, t in inputs((4000,), 16, 32).items()}
    results: list[list[Tensor]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            output = feedforward(**given, p=0.3, impl="cpu")
            results.append([output, *torch.autograd.grad(output.sum(), given.values())])
    finally:
        torch.set_num_threads(1)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_it_is_registered_as_torch_wants_it(p: float) -> None:
    given = [t.requires_grad_() for t in inputs((9,), 16, 8).values()]
    seed = torch.tensor(4) if p else None
    library.opcheck(torch.ops.tsattn.feedforward.default, (*given, seed, p))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expand_weight": torch.zeros(8, 3)}, r"\[5, 16\], \[8, 3\]"),
        ({"contract_bias": torch.zeros(3)}, r"biases \[8\] and \[16\], got \[8\] and \[3\]"),
        ({"p": 1.0}, r"p must be in \[0, 1\), got 1.0"),
        ({"impl": "sdpa"}, "no impl 'sdpa'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feedforward(**(inputs((5,), 16, 8) | change))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("given", "message"),
    [(inputs((5,), 64, 8), "not 64"), (inputs((5,), 10, 8), "not 10")],
)
def test_the_kernel_refuses_by_name_what_auto_gives_to_torch(
    given: dict[str, Tensor], message: str
) -> None:
    assert feedforward(**given).shape == given["x"].shape
    with pytest.raises(ValueError, match=message):
        feedforward(**given, impl="cpu")


def test_autocast_and_float64_go_to_torch() -> None:
    given = inputs((5,), 16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert feedforward(**given).dtype == torch.bfloat16
    assert feedforward(**{name: t.double() for name, t in given.items()}).dtype == torch.float64
    assert dropout(given["x"], 0.0) is given["x"]
