"""What the Triton kernels must hold beyond the situations that every implementation must master.

Runs in Triton's interpreter: `test_fused_triton` starts it in a process of its own, since the
interpreter is chosen before triton is first imported. By hand:
``TRITON_INTERPRET=1 pytest tests/ops/triton_interpreted.py``.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, library

from tests.budget import assert_within_budget
from tests.ops.attention_cases import CASES, Case
from tsattn.ops import VALUE_ACTIVATIONS, Impl, active_attention, availability
from tsattn.ops.attention import fused_triton, triton_op
from tsattn.ops.attention.triton_op import (
    Tiles,
    active_attention_triton,
    active_attention_triton_backward,
    choose_tiles,
)

SHORT, LONG = 42, 70
SEED = torch.tensor([2**40 + 7])


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype)


def heads(length: int, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [draw(2, 3, length, width, dtype=dtype) for _ in "qkv"]


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
    return active_attention(q, k, v, impl=Impl.TRITON, **options)


def weights_after_dropout(length: int, p: float, seed: Tensor, width: int = 8) -> Tensor:
    """Return the weights [2, 3, length, length] of equal scores: the values are the unit matrix."""
    q = torch.zeros(2, 3, length, width)
    unit = torch.eye(length).expand(2, 3, length, length)
    options = ("identity", False, False, p, 1.0)
    return active_attention_triton(q, q, unit, None, None, seed, *options)[0]


@pytest.fixture
def _large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into few tiles: the interpreter's time goes by their number, hardly by their size."""

    def choose(q: Tensor, k: Tensor, v: Tensor) -> Tiles:
        usual = choose_tiles(q, k, v)
        return usual._replace(queries=min(64, max(16, usual.queries * 4)), keys=32)

    monkeypatch.setattr(triton_op, "choose_tiles", choose)


BOTH = (torch.float32, torch.bfloat16)


@pytest.mark.usefixtures("_large_tiles")
@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for i, case in enumerate(CASES) for dtype in (BOTH if i % 6 == 0 else BOTH[:1])],
    ids=str,
)
def test_outputs_and_gradients_stay_within_the_error_budget(case: Case, dtype: torch.dtype) -> None:
    few = replace(case, heads=min(case.heads, 4))
    assert_within_budget(few.implementation(Impl.TRITON), few.plain, few.inputs(dtype))


def test_the_interpreter_is_on() -> None:
    (listed,) = [a for a in availability() if a.name == Impl.TRITON]
    assert listed.available, listed.reason
    assert "interpreter" in listed.reason


@pytest.mark.usefixtures("_large_tiles")
@pytest.mark.parametrize(("length", "p"), [(SHORT, 0.5), (LONG, 0.1)])
def test_dropout_drops_at_its_rate_everywhere(length: int, p: float) -> None:
    kept = weights_after_dropout(length, p, SEED) > 0
    torch.testing.assert_close(
        weights_after_dropout(length, p, SEED), kept / (length * (1 - p)), rtol=1e-5, atol=0
    )
    deviation = math.sqrt(p * (1 - p) / kept.numel())
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5 * deviation)
    for axes in ((0, 1, 2), (0, 1, 3), (2, 3)):  # by key, by query, by head
        rates = kept.float().mean(axes)
        allowed = 5 * math.sqrt(p * (1 - p) * rates.numel() / kept.numel())
        assert (rates - (1 - p)).abs().max() < allowed


@pytest.mark.usefixtures("_large_tiles")
def test_dropout_is_independent_between_heads_neighbours_and_seeds() -> None:
    first = (weights_after_dropout(LONG, 0.5, SEED) > 0).float() - 0.5
    second = (weights_after_dropout(LONG, 0.5, SEED + 1) > 0).float() - 0.5
    pairs = {
        "seeds": (first, second),
        "heads": (first[:, 0], first[:, 1]),
        "windows": (first[0], first[1]),
        "neighbouring keys": (first[..., 1:], first[..., :-1]),
        "keys of one Philox block and the next": (first[..., 4:], first[..., :-4]),
        "neighbouring queries": (first[:, :, 1:], first[:, :, :-1]),
        "mirrored": (first, first.mT),
    }
    for name, (one, other) in pairs.items():
        likeness = 4 * (one * other).mean().item()
        assert abs(likeness) < 5 / math.sqrt(one.numel()) + 1 / LONG, name


def test_the_dropout_mask_does_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = weights_after_dropout(LONG, 0.4, SEED)
    other = Tiles(16, 64, 16, 128, 4, False)
    monkeypatch.setattr(triton_op, "choose_tiles", lambda *_, **__: other)
    torch.testing.assert_close(weights_after_dropout(LONG, 0.4, SEED), usual, rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_every_gradient_sees_the_mask_that_the_output_saw(length: int) -> None:
    p, scale = 0.3, 0.4
    keep = weights_after_dropout(length, p, SEED) > 0

    def fused(q: Tensor, k: Tensor, v: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        output, scores, _ = active_attention_triton(
            q, k, v, prev, None, SEED, "gelu", True, True, p, scale
        )
        return output, scores

    def plain(q: Tensor, k: Tensor, v: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        scores = scale * q @ k.mT + prev
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1) * keep / (1 - p)
        return weights @ torch.nn.functional.gelu(v), scores

    q, k, v = heads(length)
    inputs = {"q": q, "k": k, "v": v, "prev": draw(2, 3, length, length)}
    assert_within_budget(fused, plain, inputs)


def test_torchs_seed_decides_the_dropout() -> None:
    q, k, v = heads(SHORT)
    torch.manual_seed(5)
    first, second = (attend(q, k, v, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(attend(q, k, v, dropout_p=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_without_residual_scores_nothing_of_their_size_is_kept(length: int) -> None:
    q, k, v = (t.requires_grad_() for t in heads(length))
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    mask = torch.rand(1, 1, length, length) > 0.3
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        attend(q, k, v, activation="tanh", dropout_p=0.2, mask=mask, is_causal=True)
    kept = [t for t in kept if t.data_ptr() != mask.data_ptr()]
    assert sum(t.untyped_storage().nbytes() for t in kept) <= 4 * (4 * q.numel() + 6 * length) + 8


def test_a_mask_is_read_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    run = fused_triton.launch

    def spy(kernel: Any, programs: int, arguments: dict[str, Any], warps: int) -> None:
        seen.append(arguments["mask"])
        run(kernel, programs, arguments, warps)

    monkeypatch.setattr(fused_triton, "launch", spy)
    q, k, v = (t.requires_grad_() for t in heads(SHORT))
    mask = torch.rand(2, 1, 1, SHORT) > 0.3
    attend(q, k, v, mask=mask).sum().backward()
    assert [m.data.data_ptr() for m in seen] == [mask.data_ptr()] * 2
    assert {m.strides for m in seen} == {(SHORT, 0, 0, 1)}


def test_a_loss_on_the_scores_alone_reaches_queries_and_keys() -> None:
    q, k, v = (t.requires_grad_() for t in heads(5))
    _, scores = attend(q, k, v, return_scores=True, is_causal=True)
    d_q, d_k, d_v = torch.autograd.grad(scores.sum(), (q, k, v))
    torch.testing.assert_close(d_q, k.sum(2, keepdim=True).expand_as(q) * 8**-0.5)
    torch.testing.assert_close(d_k, q.sum(2, keepdim=True).expand_as(k) * 8**-0.5)
    assert (d_v == 0).all()


def test_large_scores_neither_overflow_nor_vanish() -> None:
    q, k, v = heads(SHORT)
    for shift in (-300.0, 300.0):
        previous = torch.full((2, 3, SHORT, SHORT), shift)
        result = attend(q, k, v, activation="silu", prev_scores=previous)
        torch.testing.assert_close(result, attend(q, k, v, activation="silu"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", VALUE_ACTIVATIONS)
def test_activations_and_their_slopes_hold_far_from_zero_and_near_it(name: str) -> None:
    near = torch.tensor([0.0, 1e-30, 1e-6, 1e-3, 0.1, 0.6249, 0.6251, 1.0, 3.0, 9.0, 30.0, 88.0])
    points = torch.cat([near, -near]).reshape(1, 1, 1, -1)
    q = torch.zeros(1, 1, 1, 4)
    v = points.clone().requires_grad_()
    exact = points.double().requires_grad_()
    expected = VALUE_ACTIVATIONS[name](exact)
    output = attend(q, q, v, activation=name)
    torch.testing.assert_close(output.double(), expected, rtol=2e-6, atol=1e-7)
    (slope,) = torch.autograd.grad(output.sum(), v)
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("width", [1, 3, 16, 24, 130])
def test_any_head_width_is_padded_and_cut_again(width: int) -> None:
    q, k, v = heads(20, width)
    torch.testing.assert_close(
        attend(q, k, v, activation="tanh"), active_attention(q, k, v, activation="tanh")
    )


def test_half_precision_is_summed_in_float32() -> None:
    q, k, v = heads(LONG, dtype=torch.float16)
    output, scores = attend(q, k, v, activation="relu", return_scores=True)
    exact = active_attention(
        q.double(), k.double(), v.double(), activation="relu", impl=Impl.REFERENCE
    )
    assert output.dtype == scores.dtype == torch.float16
    torch.testing.assert_close(output.double(), exact, rtol=2e-3, atol=2e-3)


def test_autocast_chooses_the_dtype_of_the_kernels() -> None:
    q, k, v = (t.requires_grad_() for t in heads(SHORT))
    with torch.autocast("cpu", torch.bfloat16):
        output = attend(q, k, v, activation="tanh")
    assert output.dtype == torch.bfloat16
    narrow = attend(*(t.bfloat16() for t in (q, k, v)), activation="tanh")
    torch.testing.assert_close(output, narrow, rtol=0, atol=0)
    assert torch.autograd.grad(output.sum(), q)[0].dtype == torch.float32


@pytest.mark.usefixtures("_large_tiles")
@pytest.mark.parametrize("length", [20, 65])
def test_the_operation_passes_opcheck(length: int) -> None:
    q, k, v = (draw(1, 2, length, 8).requires_grad_() for _ in "qkv")
    previous = draw(1, 2, length, length).requires_grad_()
    mask = torch.rand(length, length) > 0.2
    library.opcheck(
        active_attention_triton,
        (q, k, v, previous, mask, SEED, "gelu", True, False, 0.2, 0.5),
    )
    library.opcheck(
        active_attention_triton, (q, k, v, None, None, None, "tanh", False, True, 0.0, 0.5)
    )


def test_the_operations_gradient_passes_opcheck() -> None:
    q, k, v = heads(SHORT)
    mask = draw(2, 3, SHORT, SHORT)
    output, scores, lse = active_attention_triton(
        q, k, v, scores := draw(2, 3, SHORT, SHORT), mask, None, "silu", True, False, 0.0, 0.5
    )
    settings = ("silu", False, 0.0, 0.5)
    for g_scores, wants in ((scores, True), (None, False)):
        library.opcheck(
            active_attention_triton_backward,
            (output, g_scores, q, k, v, scores, mask, None, output, lse, *settings, wants, wants),
        )


@pytest.mark.unchecked
def test_a_compiled_network_gives_the_same_outputs_and_gradients() -> None:
    def network(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first, scores = attend(q, k, v, activation="tanh", return_scores=True, dropout_p=0.3)
        return attend(first, k, v, activation="gelu", prev_scores=scores).square()

    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    results: list[list[Tensor]] = []
    for run in (network, compiled):
        torch.manual_seed(3)
        q, k, v = (t.requires_grad_() for t in heads(SHORT))
        torch.manual_seed(4)
        output = run(q, k, v)
        results.append([output, *torch.autograd.grad(output.sum(), (q, k, v))])
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(other, eager)


def test_short_sequences_take_one_program_a_head_and_long_ones_tiles() -> None:
    for length, is_short in ((1, True), (42, True), (64, True), (65, False), (336, False)):
        q, k, v = heads(length)
        assert choose_tiles(q, k, v).is_short is is_short
