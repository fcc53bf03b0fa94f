"""The choice of experts and their weights against the definitions, token by token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tsattn.nn.moe import NORMALISATIONS, balance_loss, select
from tsattn.nn.moe.selection import Normalisation, best


def by_hand(row: list[float], k: int, normalisation: str) -> dict[int, float]:
    """Return the weights of the chosen experts from the definitions."""
    ranked = sorted(range(len(row)), key=lambda e: (-row[e], e))
    chosen = range(len(row)) if normalisation == "dense" else ranked[:k]
    exps = [math.exp(v) for v in row]
    sigmoids = [1 / (1 + math.exp(-v)) for v in row]
    if normalisation in ("dense", "softmax_topk"):
        return {e: exps[e] / sum(exps) for e in chosen}
    if normalisation == "topk_softmax":
        return {e: exps[e] / sum(exps[j] for j in chosen) for e in chosen}
    if normalisation == "sigmoid":
        return {e: sigmoids[e] for e in chosen}
    return {e: sigmoids[e] / sum(sigmoids[j] for j in chosen) for e in chosen}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("top_k", [1, 2, 5, 6])
def test_weights_follow_the_definition(normalisation: Normalisation, top_k: int) -> None:
    if normalisation == "dense" and top_k < 6:
        top_k = 6
    logits = torch.randn(20, 6, dtype=torch.float64) * 2
    selection = select(logits, top_k, normalisation)
    for n, row in enumerate(logits.tolist()):
        expected = by_hand(row, top_k, normalisation)
        found = zip(selection.experts_NK[n].tolist(), selection.weights_NK[n].tolist(), strict=True)
        assert dict(found) == pytest.approx(expected)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_probabilities_sum_to_one(normalisation: Normalisation) -> None:
    selection = select(torch.randn(20, 6), 6, normalisation)
    torch.testing.assert_close(selection.probabilities_NE.sum(-1), torch.ones(20))


@pytest.mark.parametrize("normalisation", ["dense", "topk_softmax", "normalised_sigmoid"])
@given(data=st.data())
def test_weights_of_a_token_sum_to_one(normalisation: Normalisation, data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 9))
    top_k = experts if normalisation == "dense" else data.draw(st.integers(1, experts))
    rows = data.draw(
        st.lists(
            st.lists(st.floats(-1e4, 1e4, width=32), min_size=experts, max_size=experts),
            min_size=1, max_size=4,
        )
    )  # fmt: skip
    selection = select(torch.tensor(rows), top_k, normalisation)
    assert all(len(set(row)) == top_k for row in selection.experts_NK.tolist())
    torch.testing.assert_close(selection.weights_NK.sum(-1), torch.ones(len(rows)))


@pytest.mark.parametrize("top_k", [1, 2, 3, 5, 7])
def test_of_equal_scores_the_first_expert_wins(top_k: int) -> None:
    logits = torch.randint(0, 3, (500, 7)).float()
    expected = [sorted(range(7), key=lambda e: (-row[e], e))[:top_k] for row in logits.tolist()]
    assert best(logits, top_k).tolist() == expected


def test_saturated_logits_still_choose_the_largest() -> None:
    logits = torch.tensor([[200.0, 300.0, 100.0, 400.0]])
    assert select(logits, 2, "sigmoid").experts_NK.tolist() == [[3, 1]]
    assert select(logits, 2, "softmax_topk").experts_NK.tolist() == [[3, 1]]


@pytest.mark.parametrize("normalisation", ["topk_softmax", "softmax_topk", "normalised_sigmoid"])
def test_a_bias_that_moves_nobody_leaves_the_choice_as_it_is(
    normalisation: Normalisation,
) -> None:
    logits = torch.tensor([[200.0, 300.0, 100.0, 400.0], [-300.0, -400.0, -200.0, -200.0]])
    without = select(logits, 2, normalisation).experts_NK
    assert without.tolist() == [[3, 1], [2, 3]]
    for bias in (0.0, 0.25):
        chosen = select(logits, 2, normalisation, torch.full((4,), bias)).experts_NK
        assert torch.equal(chosen, without)


@pytest.mark.parametrize("normalisation", ["topk_softmax", "softmax_topk", "normalised_sigmoid"])
def test_a_bias_changes_the_choice_and_not_the_weights(normalisation: Normalisation) -> None:
    logits = torch.tensor([[1.0, 0.9, -2.0]])
    bias = torch.tensor([0.0, 0.0, 5.0])
    selection = select(logits, 2, normalisation, bias)
    assert selection.experts_NK.tolist() == [[2, 0]]
    raw = logits.sigmoid() if "sigmoid" in normalisation else logits.exp()
    chosen = torch.stack([raw[0, 2], raw[0, 0]])
    total = raw.sum() if normalisation == "softmax_topk" else chosen.sum()
    torch.testing.assert_close(selection.weights_NK[0], chosen / total)


@pytest.mark.parametrize(
    "normalisation", ["topk_softmax", "softmax_topk", "sigmoid", "normalised_sigmoid"]
)
def test_a_bias_gives_nothing_to_a_barred_expert(normalisation: Normalisation) -> None:
    logits = torch.tensor([[0.3, -torch.inf, 0.1, -2.0], [0.5, 0.2, -torch.inf, 0.1]])
    bias = torch.tensor([-0.6, 0.6, -0.6, -0.6])
    for top_k, expected in ((1, [[0], [1]]), (2, [[0, 2], [1, 0]]), (3, [[0, 2, 3], [1, 0, 3]])):
        selection = select(logits, top_k, normalisation, bias)
        assert selection.experts_NK.tolist() == expected
        assert (selection.weights_NK > 0).all()


@pytest.mark.parametrize("level", [0.0, -50.0, -120.0, -1e4, 1e4])
def test_sigmoid_scores_too_small_for_a_float_still_have_shares(level: float) -> None:
    steps = torch.tensor([[0.0, 1.0, -1.0, 0.5]])
    logits = (level + steps).requires_grad_()
    selection = select(logits, 2, "normalised_sigmoid")
    exact = torch.nn.functional.logsigmoid(level + steps.double())
    torch.testing.assert_close(selection.probabilities_NE.double(), exact.softmax(-1))
    chosen = exact.gather(1, selection.experts_NK).softmax(-1)
    torch.testing.assert_close(selection.weights_NK.double(), chosen)
    assert selection.experts_NK.tolist() == [[1, 3]]
    loss = balance_loss(selection.probabilities_NE, torch.tensor([0, 1, 0, 1]))
    (loss + selection.weights_NK[0, 0]).backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("normalisation", ["sigmoid", "normalised_sigmoid"])
def test_ordinary_sigmoid_scores_are_divided_by_their_sum(normalisation: Normalisation) -> None:
    logits = torch.randn(200, 6) * 3
    selection = select(logits, 2, normalisation)
    scores = logits.sigmoid()
    expected = scores / scores.sum(-1, keepdim=True)
    torch.testing.assert_close(selection.probabilities_NE, expected, rtol=1e-6, atol=1e-6)
    weights = scores.gather(1, selection.experts_NK)
    if normalisation == "normalised_sigmoid":
        weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(selection.weights_NK, weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_infinite_logits_are_refused_and_a_barred_expert_is_not(
    normalisation: Normalisation,
) -> None:
    logits = torch.randn(5, 4)
    logits[2, 1] = -torch.inf
    barred = select(logits, 4, normalisation)
    assert barred.weights_NK[2, 1] == barred.probabilities_NE[2, 1] == 0
    torch.testing.assert_close(barred.probabilities_NE.sum(-1), torch.ones(5))
    logits[3, 0] = torch.inf
    with pytest.raises(ValueError, match="infinite for 1 of 5 tokens, experts 0; "):
        select(logits, 4, normalisation)
    logits[3] = -torch.inf
    with pytest.raises(ValueError, match="infinite for 1 of 5 tokens, experts 0, 1, 2, 3"):
        select(logits, 4, normalisation)


def test_nan_logits_are_refused_with_the_experts_that_have_them() -> None:
    logits = torch.randn(5, 4)
    logits[1, 2] = logits[3, 2] = logits[3, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN for 2 of 5 tokens, experts 0, 2"):
        select(logits, 2)


def test_nan_counts_as_the_lowest_score_where_nobody_looks() -> None:
    nan = torch.nan
    scores = torch.tensor([[nan, 1.0, nan], [nan, nan, nan], [-torch.inf, nan, 0.0]])
    assert best(scores, 2).tolist() == [[1, 0], [0, 1], [2, 0]]


@pytest.mark.parametrize("top_k", [0, 5])
def test_a_choice_of_more_experts_than_there_are_is_refused(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"got top_k={top_k} of 4 experts"):
        select(torch.randn(3, 4), top_k)


@pytest.mark.unchecked
def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown normalisation 'softmax'; expected one of dense"):
        select(torch.randn(3, 4), 2, "softmax")  # pyright: ignore


def test_gradients_reach_the_logits_that_the_weights_depend_on() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.0]], requires_grad=True)

    def reached(normalisation: Normalisation) -> list[bool]:
        weights: Tensor = select(logits, 2, normalisation).weights_NK
        (grad,) = torch.autograd.grad((weights * torch.tensor([[1.0, 3.0]])).sum(), logits)
        return (grad != 0)[0].tolist()

    assert reached("topk_softmax") == [True, True, False, False]
    assert reached("softmax_topk") == [True, True, True, True]
    assert reached("sigmoid") == [True, True, False, False]
