"""Residual path, dropout and layer normalisation in one operation."""

# pyright: reportArgumentType=false, reportCallIssue=false

import pytest
import torch
from torch import Tensor, library
from torch.nn import functional as F

from tests.budget import assert_within_budget
from tests.ops.test_batch_norm import inputs
from tsattn.ops import add_dropout_layer_norm
from tsattn.ops.dropout.philox import keep_flat, keep_scale

SHAPES = [(1, 20), (5, 7, 33), (255, 16), (257, 40), (3, 200, 16), (2, 30, 512)]


def plain(
    residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None, p: float
) -> Tensor:
    if seed is not None:
        keep = keep_flat(seed, x.numel(), p).view(x.shape)
        x = (x * keep_scale(p)).masked_fill(~keep, 0.0)
    return F.layer_norm(residual + x, weight.shape, weight, bias)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_stay_within_the_error_budget(
    shape: tuple[int, ...], p: float
) -> None:
    seed = torch.tensor(2**40 + 3) if p else None

    def fused(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        operation = torch.ops.tsattn.add_dropout_layer_norm
        return operation(residual, x, weight, bias, seed, p, 1e-5)[0]

    assert_within_budget(fused, lambda **given: plain(**given, seed=seed, p=p), inputs(*shape))


@pytest.mark.needs_kernels
def test_a_bfloat16_branch_is_added_to_a_float32_path() -> None:
    given = inputs(300, 16, dtype=torch.bfloat16)
    leaves = {name: t.clone().requires_grad_() for name, t in given.items()}
    normed = add_dropout_layer_norm(**leaves, impl="cpu")
    assert normed.dtype == torch.float32
    torch.testing.assert_close(normed, plain(**given, seed=None, p=0.0))
    above = torch.randn(300, 16)
    normed.backward(above)
    assert leaves["x"].grad is not None
    wide = {name: t.float().requires_grad_() for name, t in given.items()}
    expected = torch.autograd.grad(plain(**wide, seed=None, p=0.0), wide["x"], above)[0]
    torch.testing.assert_close(leaves["x"].grad, expected.bfloat16(), rtol=2e-2, atol=2e-2)


@pytest.mark.needs_kernels
def test_a_large_level_does_not_drown_the_variance() -> None:
    given = inputs(100, 64)
    given["residual"] += 1000.0
    output = add_dropout_layer_norm(**given, impl="cpu")
    exact = plain(**{n: t.double() for n, t in given.items()}, seed=None, p=0.0)
    torch.testing.assert_close(output.double(), exact, rtol=0, atol=2e-3)


@pytest.mark.needs_kernels
def test_the_seed_of_torch_decides_and_implementations_agree() -> None:
    given = inputs(50, 16)
    results: list[Tensor] = []
    for impl in ("cpu", "cpu", "reference"):
        torch.manual_seed(1)
        results.append(add_dropout_layer_norm(**given, p=0.3, impl=impl))
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])
    assert not torch.allclose(results[0], add_dropout_layer_norm(**given, p=0.3, impl="cpu"))


@pytest.mark.needs_kernels
def test_the_number_of_threads_changes_nothing() -> None:
    given = {name: t.requires_grad_() for name, t in inputs(3000, 16).items()}
    results: list[list[Tensor]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            output = add_dropout_layer_norm(**given, p=0.3, impl="cpu")
            gradients = torch.autograd.grad(output.square().sum(), given.values())
            results.append([output, *gradients])
    finally:
        torch.set_num_threads(1)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_it_is_registered_as_torch_wants_it(p: float) -> None:
    given = [t.requires_grad_() for t in inputs(9, 16).values()]
    seed = torch.tensor(4) if p else None
    operation = torch.ops.tsattn.add_dropout_layer_norm.default
    library.opcheck(operation, (*given, seed, p, 1e-5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 4)}, r"\[5, 16\] and \[5, 4\]"),
        ({"bias": torch.zeros(3)}, r"must be \[16\], got \[16\] and \[3\]"),
        ({"p": 1.0}, r"p must be in \[0, 1\), got 1.0"),
        ({"impl": "sdpa"}, "no impl 'sdpa'"),
        ({"impl": "triton"}, "no impl 'triton'; expected auto, reference or cpu"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_dropout_layer_norm(**(inputs(5, 16) | change))


def test_the_kernel_refuses_by_name_what_auto_gives_to_torch() -> None:
    given = {name: t.double() for name, t in inputs(5, 16).items()}
    assert add_dropout_layer_norm(**given).dtype == torch.float64
    with pytest.raises(ValueError, match="float64"):
        add_dropout_layer_norm(**given, impl="cpu")
