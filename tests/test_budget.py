from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.budget import assert_within_budget


def plain(x: Tensor, y: Tensor) -> Tensor:
    return torch.softmax(x @ y, dim=-1)


class _ForgetsGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient * 1.00001


def unwritten(x: Tensor, y: Tensor) -> Tensor:
    exact = plain(x, y)
    return torch.where(torch.arange(exact.shape[1]) < 4, exact, torch.empty_like(exact))


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return {"x": torch.randn(30, 20), "y": torch.randn(20, 5)}


def test_the_computation_itself_is_within_its_budget(inputs: dict[str, Tensor]) -> None:
    assert_within_budget(plain, plain, inputs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda x, y: plain(x, y) * 1.000002, "output 0"),
        (lambda x, y: plain(_ForgetsGradient.apply(x), y), "gradient of x"),
        (lambda x, y: plain(x, y.detach()) + 0 * y.sum(), "gradient of y"),
        (lambda x, y: plain(x, y.half().float()), "output 0"),
        (lambda x, y: plain(x, y) / (x[:, :1] != x[0, 0]), "output 0"),
        (lambda x, y: plain(x, y).double(), "output 0 is torch.float64"),
        (unwritten, "output 0 is off by nan"),
    ],
)
def test_what_is_beyond_the_budget_is_named(
    wrong: Callable[[Tensor, Tensor], Tensor], named: str, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(AssertionError, match=named):
        assert_within_budget(wrong, plain, inputs)


def test_a_gradient_that_is_truly_zero_may_be_rounding_noise(inputs: dict[str, Tensor]) -> None:
    def shifted(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        return torch.softmax(x @ y + c, dim=-1)

    def summed_otherwise(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        powers = torch.exp(x @ y + c - (x @ y + c).amax(-1, keepdim=True))
        return powers / powers.sum(-1, keepdim=True)

    assert_within_budget(summed_otherwise, shifted, inputs | {"c": torch.randn(30, 1)})
