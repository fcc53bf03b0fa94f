"""Large linear maps on CPUs: torch's numbers, whoever multiplies."""

from typing import Any

import pytest
import torch
from torch import Tensor, library
from torch.nn import functional as F

from tests.budget import assert_within_budget
from tsattn.ops import build, linear
from tsattn.ops.linear import fused_cpu

pytestmark = pytest.mark.skipif(not build.is_ready(), reason=build.status().reason)


def inputs(dtype: torch.dtype, *shape: int, features: int = 48) -> dict[str, Tensor]:
    width = shape[-1]
    tensors = {"x": torch.randn(shape), "weight": torch.randn(features, width)}
    tensors["bias"] = torch.randn(features)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(7, 5, 16), (300, 33), (1100, 16), (513, 64), (16,), (0, 16)], ids=str
)
def test_output_and_gradients_stay_within_the_error_budget(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    features = 150 if shape[0] == 300 else 48  # the sums of a bias go by 128 columns
    assert_within_budget(fused_cpu.linear, F.linear, inputs(dtype, *shape, features=features))


DENSE = [(56, 32, 32), (57, 96, 45), (113, 45, 96), (2, 700, 64, 50), (3000, 130, 34),
         (70, 2048, 40), (60, 40, 2050), (61, 1100, 600)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", DENSE, ids=str)
def test_products_between_many_features_stay_within_the_error_budget(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Whole strips and panels and what is left over, even and odd, rows a page apart, segments."""
    *rows, features = shape
    assert_within_budget(fused_cpu.linear, F.linear, inputs(dtype, *rows, features=features))


@pytest.mark.parametrize("shape", [(57, 96), (2, 700, 64), (20, 64), (57, 45)], ids=str)
def test_rows_of_float_beside_a_weight_of_bfloat16(shape: tuple[int, ...]) -> None:
    given = inputs(torch.float32, *shape)
    x = given["x"].requires_grad_()
    weight, bias = (given[name].bfloat16().requires_grad_() for name in ("weight", "bias"))
    output = torch.ops.tsattn.linear(x, weight, bias)
    assert output.dtype == torch.bfloat16
    rounded = x.detach().bfloat16().requires_grad_()
    expected = F.linear(rounded, weight, bias)
    torch.testing.assert_close(output, expected)
    above = torch.randn(output.shape).bfloat16()
    found = torch.autograd.grad(output, (x, weight, bias), above)
    wanted = torch.autograd.grad(expected, (rounded, weight, bias), above)
    assert [g.dtype for g in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two.to(one.dtype), rtol=2e-2, atol=2e-2)


def test_infinity_and_nan_stay_in_their_rows() -> None:
    x, weight = torch.randn(61, 64), torch.randn(70, 64)
    x[7], x[60, 3], weight[69, 5] = float("nan"), float("inf"), float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        given = x.to(dtype), weight.to(dtype)
        finite = fused_cpu.linear(*given, None).isfinite()
        assert torch.equal(finite, F.linear(*given).isfinite())


@pytest.mark.parametrize("width", [16, 64])
def test_the_number_of_threads_changes_nothing(width: int) -> None:
    tensors = {n: t.requires_grad_() for n, t in inputs(torch.float32, 3000, width).items()}
    found: list[tuple[Tensor, ...]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output = fused_cpu.linear(**tensors)
            found.append((output, *torch.autograd.grad(output.square().sum(), [*tensors.values()])))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_wide_map_reduces_the_sums_of_its_bias_in_one_order() -> None:
    tensors = {n: t.requires_grad_() for n, t in inputs(torch.float32, 3000, 80).items()}
    bias: list[Tensor] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loss = fused_cpu.linear(**tensors).square().sum()
            bias.append(torch.autograd.grad(loss, tensors["bias"])[0])
    finally:
        torch.set_num_threads(1)
    assert torch.equal(*bias)


def test_the_bias_may_be_absent_and_the_input_turned_around() -> None:
    x, weight = torch.randn(16, 40).t(), torch.randn(24, 16)
    torch.testing.assert_close(fused_cpu.linear(x, weight, None), F.linear(x, weight))


@pytest.mark.parametrize("shape", [(20, 1024), (60, 64), (700, 16)], ids=str)
def test_a_bias_may_lie_apart(shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape), torch.randn(48, shape[-1]) / 32
    bias = torch.randn(48, 2)[:, 0]
    torch.testing.assert_close(fused_cpu.linear(x, weight, bias), F.linear(x, weight, bias))


def test_autocast_to_another_dtype_is_left_to_torch() -> None:
    x, weight = torch.randn(64, 1024), torch.randn(512, 1024)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_only_large_products_on_a_cpu_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(fused_cpu, "linear", lambda *given: calls.append(given) or given[0])
    large = inputs(torch.float32, 30000, 16)
    for small in (inputs(torch.float32, 8, 16), inputs(torch.float32, 2000, 80)):
        linear(**small)
    assert not calls
    linear(**large)
    linear(**inputs(torch.float32, 2000, 16))
    assert len(calls) == 2
    linear(**{name: tensor.double() for name, tensor in large.items()})
    assert len(calls) == 2


def test_autocast_decides_the_dtype() -> None:
    tensors = {name: t.requires_grad_() for name, t in inputs(torch.float32, 30000, 16).items()}
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = linear(**tensors), F.linear(**tensors)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert {t.grad.dtype for t in tensors.values() if t.grad is not None} == {torch.float32}


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    tensors = inputs(torch.float32, 40, 16)
    tensors["weight"].requires_grad_()
    fused_cpu.linear(**tensors).sum().backward()
    assert tensors["weight"].grad is not None
    assert tensors["x"].grad is None


@pytest.mark.unchecked  # sizes become symbols
def test_opcheck_finds_nothing() -> None:
    tensors = [t.requires_grad_() for t in inputs(torch.float32, 3, 5, 16).values()]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    library.opcheck(torch.ops.tsattn.linear.default, tuple(tensors), test_utils=tests)
    plain = [t.detach() for t in tensors]
    arguments = (torch.randn(3, 5, 48), *plain[:2], True, False, True)
    library.opcheck(
        torch.ops.tsattn.linear_backward.default,
        arguments,
        test_utils=("test_schema", "test_faketensor"),
    )


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(RuntimeError, match=r"got \[3, 16\] and \[48, 17\]"):
        fused_cpu.linear(torch.randn(3, 16), torch.randn(48, 17), None)
