"""Competition and its losses against the equations, computed one number at a time in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tsattn.nn.moe import (
    AFFINITIES,
    CopyExperts,
    FeedForwardExperts,
    LinearExperts,
    MixedExperts,
    ZeroExperts,
    affinities,
    compete,
    distillation_loss,
    diversity_loss,
)
from tsattn.nn.moe.experts import Experts

D, E = 6, 5

KAPPA: dict[str, Callable[[float], float]] = {
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def affinity_of(output: list[float], name: str) -> float:
    """Equations 10 and 11."""
    if name == "norm":
        return math.sqrt(sum(x * x for x in output))
    return sum(KAPPA[name](x) for x in output) / len(output)


def competition_of(
    every: list[list[float]], top_k: int, name: str
) -> tuple[list[int], list[float]]:
    """Section 2.2, steps 1 to 3: winners and their weights."""
    strengths = [affinity_of(output, name) for output in every]
    winners = sorted(range(len(every)), key=lambda e: -strengths[e])[:top_k]
    kept = [max(0.0, strengths[e]) for e in winners]
    total = sum(kept)
    return winners, [k / total if total else 1 / top_k for k in kept]


def experts(**options: object) -> FeedForwardExperts:
    return FeedForwardExperts(D, E, 8, **options).double()  # pyright: ignore


@pytest.mark.parametrize("name", AFFINITIES)
def test_an_affinity_is_its_formula(name: str) -> None:
    outputs = torch.randn(3, 4, D).double()
    expected = [[affinity_of(output, name) for output in row] for row in outputs.tolist()]
    torch.testing.assert_close(affinities(outputs, name), torch.tensor(expected).double())  # pyright: ignore


@pytest.mark.parametrize("name", AFFINITIES)
@pytest.mark.parametrize("top_k", [1, 2, E])
@pytest.mark.parametrize("computing", ["auto", "loop", "all"])
def test_the_strongest_answers_win_and_weigh_what_they_are(
    name: str, top_k: int, computing: str
) -> None:
    layer, x = experts(), torch.randn(20, D).double()
    competition = compete(layer, x, top_k, name, computing)  # pyright: ignore
    every = layer.every(x)
    for token, answers in enumerate(every.tolist()):
        winners, weights = competition_of(answers, top_k, name)
        assert competition.winners_NK[token].tolist() == winners
        assert competition.weights_NK[token].tolist() == pytest.approx(weights)
        mixture = [
            sum(w * answers[e][d] for e, w in zip(winners, weights, strict=True)) for d in range(D)
        ]
        assert competition.mixture[token].tolist() == pytest.approx(mixture)
    torch.testing.assert_close(competition.weights_NK.sum(1), torch.ones(20).double())


def test_grouped_products_give_the_same_competition() -> None:
    layer, x = FeedForwardExperts(8, E, 8), torch.randn(20, 8)
    one, other = compete(layer, x, 2, computing="grouped"), compete(layer, x, 2, computing="loop")
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_many_tokens_are_measured_in_chunks_with_the_result_of_one() -> None:
    layer, x = FeedForwardExperts(128, 3, 4), torch.randn(5000, 128)
    measured = layer.measured(x, affinities)
    torch.testing.assert_close(measured, affinities(layer.every(x)), rtol=1e-4, atol=1e-5)
    assert not measured.requires_grad
    assert compete(layer, x[:0], 2).mixture.shape == (0, 128)


@pytest.mark.parametrize(
    "layer",
    [
        LinearExperts(D, E),
        FeedForwardExperts(D, E, 4, activation="tanh"),
        MixedExperts([FeedForwardExperts(D, 2, 4), CopyExperts(D, 2), ZeroExperts(D, 1)]),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_any_experts_compete(layer: Experts) -> None:
    x = torch.randn(30, D)
    competition = compete(layer, x, 2)
    strengths = affinities(layer.every(x))
    assert torch.equal(
        competition.winners_NK, strengths.sort(descending=True, stable=True)[1][:, :2]
    )
    torch.testing.assert_close(layer.measured(x, affinities), strengths)


def test_gradients_reach_the_answers_of_the_winners_alone() -> None:
    layer, x = experts(), torch.randn(40, D).double()
    with torch.no_grad():
        layer.contract_bias[3] = -50.0  # nobody's winner
    competition = compete(layer, x, 2)
    assert (competition.winners_NK != 3).all()
    competition.mixture.square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        won = competition.winners_NK.unique()
        assert (parameter.grad[won].flatten(1).abs().sum(1) > 0).all()
        assert (parameter.grad[3] == 0).all()


@pytest.mark.parametrize("computing", ["loop", "all"])
def test_gradients_are_those_of_the_equations(computing: str) -> None:
    layer, x = experts(), torch.randn(7, D).double().requires_grad_()
    winners = compete(layer, x, 2).winners_NK

    def plain() -> Tensor:
        every = layer.every(x)
        rows = torch.arange(7)[:, None]
        strength = torch.log(1 + torch.exp(every)).mean(-1)[rows, winners]
        weights = strength / strength.sum(1, keepdim=True)
        return (weights[:, :, None] * every[rows, winners]).sum(1)

    above = torch.randn(7, D).double()
    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad(compete(layer, x, 2, computing=computing).mixture, inputs, above)
    theirs = torch.autograd.grad(plain(), inputs, above)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_decides_no_competition() -> None:
    torch.manual_seed(3)
    layer, x = FeedForwardExperts(D, E, 8, dropout=0.9), torch.randn(60, D)
    first, second = compete(layer, x, 2), compete(layer, x, 2)
    assert torch.equal(first.winners_NK, second.winners_NK)
    assert not torch.equal(first.outputs_NKD, second.outputs_NKD)  # they answer with dropout
    assert torch.equal(first.winners_NK, compete(layer.eval(), x, 2).winners_NK)


def test_equal_experts_tie_and_the_first_ones_win() -> None:
    layer = CopyExperts(D, 4)
    competition = compete(layer, torch.randn(9, D), 2)
    assert (competition.winners_NK == torch.tensor([0, 1])).all()
    torch.testing.assert_close(competition.weights_NK, torch.full((9, 2), 0.5))


def test_winners_without_a_positive_affinity_weigh_the_same() -> None:
    layer = ZeroExperts(D, 4)
    for name in ("relu", "silu", "norm"):
        assert (compete(layer, torch.randn(9, D), 2, name).weights_NK == 0.5).all()
    silent = CopyExperts(1, 3)
    competition = compete(silent, torch.tensor([[-0.5]]), 3, "silu")
    torch.testing.assert_close(competition.weights_NK, torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.7])
def test_the_distillation_loss_is_equation_1(alpha: float) -> None:
    router = torch.randn(9, E).double().softmax(1)
    winners = torch.stack([torch.randperm(E)[:2] for _ in range(9)])
    weights = torch.rand(9, 2).double()
    losses: list[float] = []
    for r, chosen, w in zip(router.tolist(), winners.tolist(), weights.tolist(), strict=True):
        s_c = [0.0] * E
        for e, weight in zip(chosen, w, strict=True):
            s_c[e] = weight
        mse = sum((a - b) ** 2 for a, b in zip(r, s_c, strict=True)) / E
        losses.append(mse + alpha / 2 * sum((s_c[e] - r[e]) ** 2 for e in chosen))
    expected = sum(losses) / len(losses)
    assert distillation_loss(router, winners, weights, alpha).item() == pytest.approx(expected)


def test_the_router_learns_from_the_competition_and_not_the_other_way_round() -> None:
    logits = torch.randn(4, E).requires_grad_()
    weights = torch.rand(4, 2).requires_grad_()
    winners = torch.tensor([[0, 1]] * 4)
    distillation_loss(logits.softmax(1), winners, weights).backward()
    assert weights.grad is None
    assert logits.grad is not None
    assert (logits.grad != 0).all()  # losers as well


def diversity_of(outputs: list[list[float]]) -> float:
    """Equation 2 for one token."""
    square = sum(x * x for row in outputs for x in row)
    pairs = [(i, j) for i in range(len(outputs)) for j in range(len(outputs)) if i != j]
    dots = [sum(a * b for a, b in zip(outputs[i], outputs[j], strict=True)) for i, j in pairs]
    return sum(dot / square for dot in dots) / len(pairs)


@pytest.mark.parametrize("top_k", [2, 3, 5])
def test_the_diversity_loss_is_equation_2(top_k: int) -> None:
    outputs = torch.randn(8, top_k, D).double()
    expected = sum(diversity_of(rows) for rows in outputs.tolist()) / 8
    assert diversity_loss(outputs).item() == pytest.approx(expected)
    unit = outputs / outputs.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.mT).sum(dim=(1, 2)) - top_k
    expected = (cosines / (top_k * (top_k - 1))).mean().item()
    assert diversity_loss(outputs, "cosine").item() == pytest.approx(expected)


@given(top_k=st.integers(2, 6), diversity=st.sampled_from(["matrix", "cosine"]))
def test_equal_outputs_are_as_alike_as_can_be_and_orthogonal_ones_not_at_all(
    top_k: int, diversity: str
) -> None:
    outputs = torch.randn(7, 1, 8).double().expand(-1, top_k, -1)
    most = 1 / top_k if diversity == "matrix" else 1.0
    assert diversity_loss(outputs, diversity).item() == pytest.approx(most)  # pyright: ignore
    apart = torch.eye(8).double()[:top_k].expand(7, -1, -1)
    assert diversity_loss(apart, diversity).item() == pytest.approx(0.0, abs=1e-12)  # pyright: ignore


def test_a_single_winner_and_silent_ones_are_not_alike() -> None:
    for outputs in (torch.randn(4, 1, D), torch.zeros(4, 2, D)):
        outputs.requires_grad_()
        loss = diversity_loss(outputs)
        loss.backward()
        assert loss == 0
        assert outputs.grad is not None
        assert (outputs.grad == 0).all()


def test_half_precision_is_measured_in_single() -> None:
    outputs = torch.randn(50, 2, 64)
    narrow = outputs.bfloat16()
    assert affinities(narrow).dtype == torch.float32
    torch.testing.assert_close(affinities(narrow), affinities(narrow.float()), rtol=0, atol=0)
    torch.testing.assert_close(diversity_loss(narrow), diversity_loss(narrow.float()))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda: affinities(torch.ones(2), "tanh"),  # pyright: ignore
            "unknown affinity 'tanh'; expected one of soft",
        ),
        (
            lambda: diversity_loss(torch.ones(1, 2, 2), "rows"),  # pyright: ignore
            "unknown diversity 'rows'; expected",
        ),
        (lambda: compete(CopyExperts(2, 3), torch.ones(1, 2), 4), "got top_k=4 of 3 experts"),
        (
            lambda: compete(CopyExperts(2, 3), torch.ones(1, 2), 1, computing="grouped"),
            "'grouped' cannot work here",
        ),
    ],
)
def test_what_cannot_be_is_refused(use: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use()
