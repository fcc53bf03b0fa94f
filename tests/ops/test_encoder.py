"""A whole encoder in one compiled operation: the layers' numbers, and when it is not taken."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, library
from torch.autograd import forward_ad

from tests.ops.fused_operations import encoder_weights
from tsattn.ops import VALUE_ACTIVATIONS, LayerWeights, build, encode, encodes_at_once
from tsattn.ops.encoder import fused_cpu, reference

compiled = pytest.mark.skipif(
    not fused_cpu.is_compiled(32, 64, torch.float32), reason="not compiled for this processor"
)

SHAPES = [(1, 1, 16, 1, 16), (3, 41, 16, 4, 32), (9, 42, 48, 6, 80), (2, 63, 128, 16, 256),
          (1, 200, 32, 2, 48), (5, 7, 64, 1, 16)]  # fmt: skip


def exactly(
    x: Tensor, layers: Sequence[LayerWeights], heads: int, activation: str, residual: bool
) -> Tensor:
    wide = [LayerWeights(*(weight.double() for weight in layer)) for layer in layers]
    return reference.encode(x.double(), wide, heads, activation, residual)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm())


@compiled
@pytest.mark.parametrize("activation", VALUE_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_stays_within_the_error_budget(
    shape: tuple[int, ...], dtype: torch.dtype, activation: str
) -> None:
    batch, length, width, heads, hidden = shape
    if not fused_cpu.is_compiled(width, hidden, dtype):
        pytest.skip(f"not compiled for {dtype} on this processor")
    x, layers = torch.randn(batch, length, width), encoder_weights(3, width, hidden, dtype)
    for residual in (True, False):
        given: dict[str, Any] = {"num_heads": heads, "activation": activation}
        given["residual_scores"] = residual
        exact = exactly(x, layers, heads, activation, residual)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = encode(x, layers, **given, impl="cpu")
            usual = encode(x, layers, **given, impl="reference")
        assert found.dtype == torch.float32
        assert error(found, exact) <= 2 * error(usual, exact) + 1e-6 * float(exact.norm())


@compiled
def test_neither_threads_nor_neighbours_change_a_sequence() -> None:
    x, layers = torch.randn(23, 42, 32), encoder_weights(2, 32, 64)

    def found(some: Tensor) -> Tensor:
        with torch.no_grad():
            return encode(some, layers, num_heads=4, activation="tanh", impl="cpu")

    whole = found(x)
    try:
        torch.set_num_threads(2)
        assert torch.equal(found(x), whole)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.cat([found(one) for one in x.split(1)]), whole)


@compiled
def test_autocast_decides_the_dtype_of_the_products() -> None:
    if not fused_cpu.is_compiled(32, 64, torch.bfloat16):
        pytest.skip("this processor leaves products of bfloat16 to libraries")
    x, layers = torch.randn(3, 42, 32), encoder_weights(2, 32, 64)
    rounded = [
        LayerWeights(*(w.bfloat16() if w.ndim == 2 else w for w in layer)) for layer in layers
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = encode(x, rounded, num_heads=4, impl="cpu")
        assert torch.equal(encode(x, layers, num_heads=4, impl="cpu"), expected)
    with torch.no_grad(), pytest.raises(ValueError, match=r"got torch\.bfloat16, torch\.float32"):
        encode(x, rounded, num_heads=4, impl="cpu")


@compiled
def test_what_it_does_not_take_is_named_and_goes_through_plain_torch() -> None:
    x, layers = torch.randn(2, 5, 32), encoder_weights(1, 32, 64)
    with pytest.raises(ValueError, match="no derivatives, and gradients are recorded"):
        encode(x, layers, num_heads=4, impl="cpu")
    assert encode(x.requires_grad_(), layers, num_heads=4).requires_grad
    with torch.no_grad():
        with pytest.raises(ValueError, match=r"has the activations identity, relu.*not <"):
            encode(x, layers, num_heads=4, activation=torch.sin, impl="cpu")
        with pytest.raises(ValueError, match=r"takes float32 and bfloat16, not torch\.float64"):
            encode(x.double(), layers, num_heads=4, impl="cpu")
        empty = encoder_weights(1, 32, 0)
        with pytest.raises(ValueError, match="no layers of 32 and 0 features"):
            encode(x, empty, num_heads=4, impl="cpu")
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
            with pytest.raises(ValueError, match="the tokens carry a tangent"):
                encode(dual, layers, num_heads=4, impl="cpu")
        odd = encoder_weights(1, 24, 64)
        assert not encodes_at_once(x[..., :24], odd, "tanh")
        with pytest.raises(ValueError, match="no layers of 24 and 64 features"):
            encode(x[..., :24], odd, num_heads=4, impl="cpu")
        expected = reference.encode(x[..., :24], odd, 4, "identity", True)
        torch.testing.assert_close(encode(x[..., :24], odd, num_heads=4), expected)


@compiled
def test_few_long_sequences_are_left_to_more_threads() -> None:
    layers = encoder_weights(1, 32, 64)
    with torch.no_grad():
        try:
            torch.set_num_threads(2)
            for batch, length, at_once in [(1, 42, True), (1, 512, False), (2, 512, True)]:
                assert encodes_at_once(torch.randn(batch, length, 32), layers, "relu") is at_once
        finally:
            torch.set_num_threads(1)


def test_without_kernels_layers_are_called_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "is_ready", lambda: False)
    with torch.no_grad():
        x, layers = torch.randn(2, 5, 32), encoder_weights(1, 32, 64)
        assert not encodes_at_once(x, layers, "tanh")
        expected = reference.encode(x, layers, 4, "tanh", True)
        assert torch.equal(encode(x, layers, num_heads=4, activation="tanh"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_BLD": torch.randn(5, 32)}, r"expected tokens \[batch, length, width\].*\[5, 32\]"),
        ({"layers": []}, "at least one layer.*and 0 layers"),
        ({"num_heads": 5}, "heads that divide the width 32, got 5"),
        ({"impl": "sdpa"}, "encode has no impl 'sdpa'; expected auto, reference or cpu"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    given = {"x_BLD": torch.randn(2, 5, 32), "layers": encoder_weights(1, 32, 64), "num_heads": 4}
    with pytest.raises(ValueError, match=message):
        encode(**(given | change))


def test_a_weight_of_another_shape_is_named() -> None:
    first, second = encoder_weights(2, 32, 64)
    layers = [first, second._replace(contract=torch.randn(64, 32))]
    with pytest.raises(ValueError, match=r"expected contract \[32, 64\] in layer 1, got \[64, 32"):
        encode(torch.randn(2, 5, 32), layers, num_heads=4)


@compiled
@pytest.mark.unchecked  # sizes become symbols
def test_it_is_registered_as_torch_wants_it() -> None:
    weights = [weight for layer in encoder_weights(2, 16, 32) for weight in layer]
    arguments = (torch.randn(3, 5, 16), weights, 4, 4, True)
    tests = ("test_schema", "test_faketensor")
    library.opcheck(torch.ops.tsattn.encode.default, arguments, test_utils=tests)
