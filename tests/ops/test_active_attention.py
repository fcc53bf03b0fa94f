import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.budget import assert_within_budget
from tests.ops.attention_cases import CASES, Case, shifted_square
from tsattn.ops import VALUE_ACTIVATIONS, Impl, active_attention, availability
from tsattn.ops.impl import triton_is_interpreted

PLAIN_TORCH = (Impl.REFERENCE, Impl.SDPA)
NAMED = [*PLAIN_TORCH, Impl.CPU, *([Impl.TRITON] if triton_is_interpreted() else [])]
"""Whom CPU tensors may be given; `test_fused_triton` runs this file again in the interpreter."""
HERE = [Impl.AUTO, *NAMED]


def output_of(result: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("impl", NAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_stay_within_the_error_budget(
    case: Case, dtype: torch.dtype, impl: Impl
) -> None:
    further = [case.torchs_own] if impl is Impl.SDPA else []
    assert_within_budget(
        case.implementation(impl), case.plain, case.inputs(dtype), further_plain=further
    )


@pytest.mark.parametrize("impl", [*PLAIN_TORCH, Impl.CPU])
@pytest.mark.parametrize("return_scores", [False, True])
def test_masks_and_scores_may_be_wider_than_the_rest(impl: Impl, return_scores: bool) -> None:
    q, k, v, previous, mask = (draw(2, 3, 5, 5) for _ in range(5))
    leaves = [previous.double().requires_grad_(), mask.double().requires_grad_()]
    found = active_attention(
        q, k, v, prev_scores=leaves[0], mask=leaves[1], return_scores=return_scores, impl=impl
    )
    expected = active_attention(
        q, k, v, prev_scores=previous, mask=mask, return_scores=return_scores, impl=Impl.REFERENCE
    )
    assert output_of(found).dtype == torch.float32
    torch.testing.assert_close(found, expected)
    for gradient in torch.autograd.grad(output_of(found).sum(), leaves):
        assert gradient.dtype == torch.float64


@pytest.mark.parametrize("impl", HERE)
def test_two_queries_and_two_keys_give_the_numbers_of_a_hand_calculation(impl: Impl) -> None:
    q = torch.tensor([[[[1.0], [2.0]]]])
    k = torch.tensor([[[[3.0], [-1.0]]]])
    v = torch.tensor([[[[0.5], [-2.0]]]])
    previous = torch.tensor([[[[0.25, 0.0], [0.0, 4.0]]]])
    expected: list[float] = []
    for query, before in ((1.0, (0.25, 0.0)), (2.0, (0.0, 4.0))):
        powers = [
            math.exp(0.5 * query * key + p) for key, p in zip((3.0, -1.0), before, strict=True)
        ]
        mixed = powers[0] * math.tanh(0.5) + powers[1] * math.tanh(-2.0)
        expected.append(mixed / sum(powers))
    output, scores = active_attention(
        q, k, v, activation="tanh", prev_scores=previous, return_scores=True, scale=0.5, impl=impl
    )
    assert output.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert scores.flatten().tolist() == [1.75, -0.5, 3.0, 3.0]


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("is_causal", [False, True])
def test_identity_activation_is_torchs_own_attention(impl: Impl, is_causal: bool) -> None:
    q, k, v = draw(2, 4, 43, 16), draw(2, 4, 63, 16), draw(2, 4, 63, 16)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    torch.testing.assert_close(active_attention(q, k, v, is_causal=is_causal, impl=impl), expected)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("name", VALUE_ACTIVATIONS)
def test_a_named_activation_is_applied_to_the_values_and_to_nothing_else(
    name: str, impl: Impl
) -> None:
    q, k, v = draw(2, 4, 42, 8), draw(2, 4, 42, 8), draw(2, 4, 42, 8)
    expected = F.scaled_dot_product_attention(q, k, VALUE_ACTIVATIONS[name](v))
    torch.testing.assert_close(active_attention(q, k, v, activation=name, impl=impl), expected)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("return_scores", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "holes", "bias", "keys"])
def test_attention_weights_are_positive_and_sum_to_one(
    impl: Impl, return_scores: bool, is_causal: bool, mask: str
) -> None:
    tensors = Case(queries=12, mask=mask, prev_scores=True).inputs(torch.float32)  # pyright: ignore
    unit_values = torch.eye(12).expand(2, 4, 12, 12)
    weights = active_attention(
        10 * tensors["q"],
        tensors["k"],
        unit_values,
        prev_scores=tensors["prev_scores"],
        mask=tensors.get("mask"),
        is_causal=is_causal,
        return_scores=return_scores,
        impl=impl,
    )
    weights = output_of(weights)
    sums = torch.ones(2, 4, 12)
    if mask == "holes":
        sums[:, :, 6] = 0.0
        if is_causal:
            sums *= (tensors["mask"].tril().any(-1)).float()
    elif mask == "keys" and is_causal:
        sums[:, :, 0] = 0.0
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), sums)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("return_scores", [False, True])
@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_query_that_sees_no_key_gives_zeros_and_zero_gradients(
    impl: Impl, return_scores: bool, floating: bool, dtype: torch.dtype
) -> None:
    q, k, v, previous = (draw(2, 3, *s).to(dtype) for s in ((5, 8), (6, 8), (6, 8), (5, 6)))
    leaves = [t.requires_grad_() for t in (q, k, v, previous)]
    sees = torch.ones(5, 6, dtype=torch.bool)
    sees[[1, 4]] = False
    mask = torch.zeros(5, 6, dtype=dtype).masked_fill(~sees, -math.inf) if floating else sees
    result = active_attention(
        q, k, v, activation="sigmoid", prev_scores=previous, mask=mask,
        return_scores=return_scores, impl=impl,
    )  # fmt: skip
    output = output_of(result)
    gradients = torch.autograd.grad(output.square().sum(), leaves)
    assert (output[:, :, [1, 4]] == 0).all()
    assert (output[:, :, [0, 2, 3]] != 0).all()
    assert all(g.isfinite().all() for g in gradients)
    for gradient in (gradients[0], gradients[3]):
        assert (gradient[:, :, [1, 4]] == 0).all()
        assert (gradient[:, :, [0, 2, 3]] != 0).any()


@pytest.mark.parametrize("impl", HERE)
def test_a_causal_query_is_blind_to_later_keys_and_values(impl: Impl) -> None:
    q, k, v = draw(1, 2, 9, 4), draw(1, 2, 9, 4), draw(1, 2, 9, 4)
    before = output_of(active_attention(q, k, v, activation="gelu", is_causal=True, impl=impl))
    k[:, :, 5:], v[:, :, 5:] = 7.0, -7.0
    after = output_of(active_attention(q, k, v, activation="gelu", is_causal=True, impl=impl))
    torch.testing.assert_close(after[:, :, :5], before[:, :, :5], rtol=0, atol=0)
    assert (after[:, :, 5:] != before[:, :, 5:]).any(dim=-1).all()


@pytest.mark.parametrize("impl", HERE)
def test_scores_handed_on_are_cumulative_and_free_of_masks(impl: Impl) -> None:
    q, k, v, previous = draw(2, 2, 5, 4), draw(2, 2, 7, 4), draw(2, 2, 7, 4), draw(2, 2, 5, 7)
    _, scores = active_attention(
        q, k, v, prev_scores=previous, return_scores=True, is_causal=True,
        mask=torch.rand(5, 7) > 0.5, impl=impl,
    )  # fmt: skip
    torch.testing.assert_close(scores, q @ k.transpose(2, 3) / 2 + previous)


@pytest.mark.parametrize("impl", HERE)
def test_the_scores_are_returned_only_where_asked_for(impl: Impl) -> None:
    q = draw(1, 1, 3, 4)
    alone = active_attention(q, q, q, activation="silu", impl=impl)
    assert isinstance(alone, Tensor)
    output, _ = active_attention(q, q, q, activation="silu", return_scores=True, impl=impl)
    torch.testing.assert_close(alone, output)


@pytest.mark.parametrize("impl", PLAIN_TORCH)
@pytest.mark.parametrize(
    "case",
    [
        Case(queries=3, keys=4, heads=2, width=3, activation="gelu", prev_scores=True,
             return_scores=True, mask="holes", is_causal=True),
        Case(queries=3, keys=4, heads=1, width=3, activation="silu", prev_scores=True, mask="bias"),
        Case(queries=4, heads=1, width=2, activation=shifted_square, is_causal=True),
    ],
    ids=str,
)  # fmt: skip
def test_derivatives_pass_gradcheck(case: Case, impl: Impl) -> None:
    tensors = case.inputs(torch.float64)
    names = list(tensors)
    leaves = [t.requires_grad_(t.is_floating_point()) for t in tensors.values()]

    def compute(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
        return case.implementation(impl)(**dict(zip(names, given, strict=True)))

    assert torch.autograd.gradcheck(compute, leaves)
    if impl is Impl.REFERENCE:
        assert torch.autograd.gradgradcheck(compute, leaves)


@pytest.mark.parametrize("impl", NAMED)
@pytest.mark.parametrize("return_scores", [False, True])
def test_dropout_drops_weights_at_its_rate_and_scales_the_rest(
    impl: Impl, return_scores: bool
) -> None:
    keys, p = 50, 0.3
    even = torch.zeros(20, 4, 30, 8)
    values = torch.ones(20, 4, keys, 1)
    result = active_attention(
        even, torch.zeros(20, 4, keys, 8), values,
        dropout_p=p, return_scores=return_scores, impl=impl,
    )  # fmt: skip
    output = output_of(result)
    kept = output * keys * (1 - p)
    torch.testing.assert_close(kept, kept.round(), atol=1e-3, rtol=0)
    deviation = math.sqrt(p * (1 - p) / (keys * kept.numel()))
    assert (kept / keys).mean().item() == pytest.approx(1 - p, abs=5 * deviation)
    spread = (kept / keys).var().item()
    assert spread == pytest.approx(p * (1 - p) / keys, rel=0.2)


@pytest.mark.parametrize("impl", NAMED)
@pytest.mark.parametrize("return_scores", [False, True])
def test_the_gradient_sees_the_weights_that_the_output_saw(impl: Impl, return_scores: bool) -> None:
    q, k, v = draw(2, 3, 10, 8), draw(2, 3, 11, 8), draw(2, 3, 11, 8).requires_grad_()
    result = active_attention(q, k, v, dropout_p=0.5, return_scores=return_scores, impl=impl)
    output = output_of(result)
    (gradient,) = torch.autograd.grad(output.sum(), v)
    torch.testing.assert_close((gradient * v).sum(), output.sum())  # linear in V, so <grad, V> = f


@pytest.mark.parametrize("impl", NAMED)
def test_without_dropout_nothing_is_random(impl: Impl) -> None:
    q = draw(2, 3, 10, 8)
    first = active_attention(q, q, q, activation="relu", impl=impl)
    torch.testing.assert_close(
        active_attention(q, q, q, activation="relu", impl=impl), first, rtol=0, atol=0
    )


@pytest.mark.parametrize("impl", PLAIN_TORCH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_outputs_and_scores_have_the_dtype_of_the_inputs(impl: Impl, dtype: torch.dtype) -> None:
    q, previous = draw(2, 3, 5, 4, dtype=dtype), draw(2, 3, 5, 5, dtype=dtype)
    output, scores = active_attention(
        q, q, q, activation="gelu", prev_scores=previous, return_scores=True, impl=impl
    )
    assert output.dtype == scores.dtype == dtype


@pytest.mark.parametrize("impl", NAMED)
def test_no_window_at_all_gives_no_output(impl: Impl) -> None:
    nothing = draw(0, 4, 5, 8)
    output = output_of(active_attention(nothing, nothing, nothing, impl=impl))
    assert output.shape == (0, 4, 5, 8)


def test_every_implementation_is_listed_with_what_it_is_or_why_it_is_missing() -> None:
    listed = availability()
    assert sorted(a.name for a in listed) == sorted(set(Impl) - {Impl.AUTO})
    assert all(a.reason for a in listed)
    assert {a.name for a in listed if a.available} >= set(PLAIN_TORCH)
