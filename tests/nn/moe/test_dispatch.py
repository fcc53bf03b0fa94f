"""Three computations, one result: outputs and gradients against token-by-token sums."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tsattn.nn.moe import (
    Computing,
    ConstantExperts,
    CopyExperts,
    Experts,
    FeedForwardExperts,
    LinearExperts,
    MixedExperts,
    ZeroExperts,
    apply_experts,
)
from tsattn.nn.moe.capacity import capacity_of, drop_beyond
from tsattn.nn.moe.dispatch import apart, choose, count, sort_slots, spread

E = 5
EXPERTS: dict[str, Callable[[], Experts]] = {
    "feedforward": lambda: FeedForwardExperts(8, E, 12),
    "tanh": lambda: FeedForwardExperts(8, E, 12, activation="tanh"),
    "fused": lambda: FeedForwardExperts(16, E, 32),
    "linear": lambda: LinearExperts(8, E),
    "mixed": lambda: MixedExperts(
        [
            FeedForwardExperts(8, 2, 4),
            ZeroExperts(8, 1),
            CopyExperts(8, 1),
            ConstantExperts(8, 1),
        ]
    ),
}


def draw(tokens: int, top_k: int, never: int | None = None) -> tuple[Tensor, Tensor]:
    """Draw distinct experts and weights; one expert may get no token."""
    scores = torch.rand(tokens, E)
    if never is not None:
        scores[:, never] = -1
    return scores.topk(top_k).indices, torch.rand(tokens, top_k) + 0.1


def naive(experts: Experts, x_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
    rows = []
    for x, chosen, weights in zip(x_ND, chosen_NK.tolist(), weights_NK, strict=True):
        every = experts.every(x[None])[0]
        rows.append(sum(w * every[e] for e, w in zip(chosen, weights, strict=True)))
    return torch.stack([row for row in rows if isinstance(row, Tensor)])


def output_and_gradients(
    experts: Experts, run: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: Tensor
) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), weights.clone().requires_grad_()]
    output = run(*leaves)
    generator = torch.Generator().manual_seed(1)
    above = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    wanted = [*leaves, *experts.parameters()]
    return [output.detach(), *torch.autograd.grad(output, wanted, above)]


def computings(experts: Experts, x: Tensor) -> list[str]:
    return ["loop", "all", *([] if experts.groupable(x) else ["grouped"])]


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("top_k", [1, 2, E])
@pytest.mark.parametrize("never", [None, 0, 3])
def test_every_computation_is_the_sum_over_the_chosen_experts(
    kind: str, top_k: int, never: int | None
) -> None:
    experts = EXPERTS[kind]()
    x, (chosen, weights) = torch.randn(23, experts.d_model), draw(23, top_k, never)
    expected = output_and_gradients(experts, lambda x, w: naive(experts, x, chosen, w), x, weights)
    if kind in ("feedforward", "tanh", "fused", "linear"):
        assert "grouped" in computings(experts, x)
    for computing in computings(experts, x):
        found = output_and_gradients(
            experts, lambda x, w, c=computing: apply_experts(experts, x, chosen, w, c), x, weights
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("computing", ["loop", "all"])
@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_parts_that_nobody_chose_have_gradients_of_zero(activation: str, computing: str) -> None:
    experts = MixedExperts(
        [
            FeedForwardExperts(8, 2, 4, activation=activation),
            LinearExperts(8, 1),
            ConstantExperts(8, 1),
            CopyExperts(8, 1),
        ]
    )
    x, weights = torch.randn(9, 8), torch.rand(9, 1)
    for dtype in (torch.float32, torch.bfloat16):
        for parameter in experts.parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            chosen = torch.full((9, 1), 4)
            out = apply_experts(experts, x, chosen, weights.requires_grad_(), computing)
        torch.testing.assert_close(out.float(), weights * x, rtol=0.01, atol=0.01)
        out.float().square().sum().backward()
        for parameter in experts.parameters():
            assert parameter.grad is not None
            assert (parameter.grad == 0).all()


@pytest.mark.parametrize("computing", ["loop", "all"])
def test_float64_gradients_are_exact(computing: str) -> None:
    experts = FeedForwardExperts(4, E, 3, activation="tanh").double()
    x, (chosen, weights) = torch.randn(7, 4).double(), draw(7, 2)
    leaves = x.requires_grad_(), weights.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: apply_experts(experts, x, chosen, w, computing), leaves
    )


@pytest.mark.parametrize("computing", ["loop", "all"])
@pytest.mark.parametrize("kind", ["tanh", "linear", "mixed"])
def test_second_derivatives_are_right(kind: str, computing: str) -> None:
    experts = (LinearExperts if kind == "linear" else _small)(4, E).double()
    if kind == "mixed":
        experts = MixedExperts([_small(4, 2), CopyExperts(4, 2), ConstantExperts(4, 1)]).double()
    x, (chosen, weights) = torch.randn(7, 4).double(), draw(7, 2, never=1)
    leaves = x.requires_grad_(), weights.double().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, w: apply_experts(experts, x, chosen, w, computing), leaves
    )
    assert torch.autograd.gradgradcheck(lambda x: apart(experts, x, chosen, computing), leaves[:1])


def _small(d_model: int, num_experts: int) -> Experts:
    return FeedForwardExperts(d_model, num_experts, 3, activation="tanh")


@pytest.mark.parametrize("computing", ["loop", "all", "grouped"])
def test_two_runs_give_the_same_bits(computing: str) -> None:
    experts = FeedForwardExperts(16, E, 32)
    x, (chosen, weights) = torch.randn(400, 16), draw(400, 3)

    def run() -> list[Tensor]:
        return output_and_gradients(
            experts, lambda x, w: apply_experts(experts, x, chosen, w, computing), x, weights
        )

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("computing", ["loop", "all", "grouped"])
def test_no_tokens_give_no_output(computing: str) -> None:
    experts = FeedForwardExperts(16, E, 32)
    empty = torch.zeros(0, 2, dtype=torch.int64)
    output = apply_experts(experts, torch.zeros(0, 16), empty, torch.zeros(0, 2), computing)
    assert output.shape == (0, 16)


@pytest.mark.parametrize("computing", ["loop", "all", "grouped"])
def test_a_gradient_of_stride_zero_is_taken(computing: str) -> None:
    experts = FeedForwardExperts(16, E, 32)
    x, (chosen, weights) = torch.randn(20, 16, requires_grad=True), draw(20, 2)
    apply_experts(experts, x, chosen, weights, computing).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("computing", ["loop", "all", "grouped"])
def test_bfloat16_under_autocast_stays_near_float32(computing: str) -> None:
    experts = FeedForwardExperts(16, E, 32)
    x, (chosen, weights) = torch.randn(50, 16), draw(50, 2)
    exact = apply_experts(experts, x, chosen, weights, "all")
    with torch.autocast("cpu", torch.bfloat16):
        low = apply_experts(experts, x, chosen, weights, computing)
        low.float().square().sum().backward()
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in experts.parameters())


@pytest.mark.parametrize("kind", ["tanh", "linear"])
@pytest.mark.parametrize("never", [None, 0, 3])
def test_an_idle_expert_does_not_decide_the_dtype_of_the_output(
    kind: str, never: int | None
) -> None:
    experts = EXPERTS[kind]()
    x, (chosen, weights) = torch.randn(50, 8), draw(50, 2, never)
    with torch.autocast("cpu", torch.bfloat16):
        assert apply_experts(experts, x, chosen, weights, "loop").dtype == torch.bfloat16
        assert apart(experts, x, chosen, "loop").dtype == torch.bfloat16


@pytest.mark.parametrize("never", [None, 0, 3])
def test_outputs_of_several_precisions_stand_side_by_side(never: int | None) -> None:
    experts = EXPERTS["mixed"]()
    x, (chosen, _) = torch.randn(50, 8, requires_grad=True), draw(50, 2, never)
    exact = apart(experts, x, chosen, "all")
    with torch.autocast("cpu", torch.bfloat16):
        low = apart(experts, x, chosen, "loop")
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0.05, atol=0.05)
    low.sum().backward()


@pytest.mark.parametrize("computing", ["loop", "all"])
def test_experts_of_several_kinds_and_precisions_add_up(computing: str) -> None:
    experts = EXPERTS["mixed"]()
    x, (chosen, weights) = torch.randn(50, 8), draw(50, 2)
    exact = apply_experts(experts, x, chosen, weights)
    weights.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        low = apply_experts(experts, x, chosen, weights, computing)
    low.float().sum().backward()
    torch.testing.assert_close(low.float(), exact, rtol=0.05, atol=0.05)
    assert weights.grad is not None


def test_slots_are_sorted_by_expert_and_then_by_token() -> None:
    chosen = torch.tensor([[2, 0], [0, 2], [2, 4]])
    slots = sort_slots(chosen, E)
    assert slots.order_S.tolist() == [1, 2, 0, 3, 4, 5]
    assert slots.counts_E.tolist() == [2, 0, 3, 0, 1] == count(chosen, E).tolist()
    many = torch.randint(0, 400, (50, 1))
    assert (many.flatten()[sort_slots(many, 400).order_S].diff() >= 0).all()


def test_spread_puts_weights_where_their_experts_are() -> None:
    weights = spread(torch.tensor([[2, 0], [1, 4]]), torch.tensor([[0.7, 0.3], [0.6, 0.4]]), E)
    assert weights.tolist() == torch.tensor([[0.3, 0, 0.7, 0, 0], [0, 0.6, 0, 0, 0.4]]).tolist()


def test_the_computation_is_chosen_by_size() -> None:
    small, large = FeedForwardExperts(16, 8, 16), FeedForwardExperts(128, 8, 128)
    assert choose(small, torch.zeros(64, 16), 2) is Computing.ALL
    assert choose(large, torch.zeros(8192, 128), 2) is Computing.LOOP
    assert choose(large, torch.zeros(8192, 128), 8) is Computing.ALL
    assert choose(large, torch.zeros(8192, 128, device="meta"), 2) is Computing.GROUPED
    assert choose(large.double(), torch.zeros(8192, 128).double().to("meta"), 2) is Computing.ALL


def test_a_computation_that_cannot_work_says_why() -> None:
    chosen, weights = draw(4, 2)
    for experts, message in (
        (FeedForwardExperts(8, E, 12).double(), "not torch.float64"),
        (FeedForwardExperts(6, E, 12), r"multiple of 16 bytes, got widths \[6, 12\]"),
        (CopyExperts(8, E), "CopyExperts have no products to group"),
    ):
        dtype = torch.float64 if "float64" in message else torch.float32
        x = torch.randn(4, experts.d_model, dtype=dtype)
        with pytest.raises(ValueError, match=message):
            apply_experts(experts, x, chosen, weights.to(dtype), "grouped")
    with pytest.raises(ValueError, match="unknown computing 'fast'; expected one of auto, loop"):
        apply_experts(CopyExperts(8, E), torch.randn(4, 8), chosen, weights, "fast")


def test_a_capacity_is_rounded_up_from_the_exact_share() -> None:
    assert capacity_of(100, 2, 4, 1.1) == 55
    for hundredths, tokens, experts in itertools.product(range(1, 300, 7), (1, 60, 100), (3, 4, 8)):
        exact = Fraction(hundredths, 100) * tokens * 2 / experts
        assert capacity_of(tokens, 2, experts, hundredths / 100) == math.ceil(exact)


@pytest.mark.parametrize("factor", [0.25, 1.0, 10.0])
def test_an_expert_takes_its_first_tokens_up_to_its_capacity(factor: float) -> None:
    chosen, weights = draw(40, 2)
    kept, dropped = drop_beyond(chosen, weights, E, factor)
    room = capacity_of(40, 2, E, factor)
    assert room == -(-int(factor * 80) // E)
    left, expected = [room] * E, weights.clone()
    for n, k in itertools.product(range(40), range(2)):
        expert = int(chosen[n, k])
        expected[n, k] *= left[expert] > 0
        left[expert] -= 1
    assert torch.equal(kept, expected)
    assert dropped.item() == (expected == 0).sum()
