"""What is said of a routing, against definitions written with sets."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tsattn.nn.moe import CompeteSMoE, plan_competitions
from tsattn.nn.moe.statistics import (
    newly_chosen,
    weight_entropies,
    weight_entropy,
    winners_picked,
)
from tsattn.training.routing_tally import Trained


def assignments(tokens: int, experts: int, top_k: int, seed: int) -> Tensor:
    order = torch.rand(tokens, experts, generator=torch.Generator().manual_seed(seed))
    return order.argsort(dim=1)[:, :top_k]


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_the_change_rate_is_the_share_of_assignments_that_do_not_match(
    tokens: int, experts: int, seed: int
) -> None:
    top_k = 1 + seed % experts
    before = assignments(tokens, experts, top_k, seed)
    after = assignments(tokens, experts, top_k, seed + 1)
    mismatched = sum(
        len(set(now) - set(then)) for then, now in zip(before.tolist(), after.tolist(), strict=True)
    )
    new = newly_chosen(before, after)
    assert new.double().mean().item() == pytest.approx(mismatched / (tokens * top_k))
    assert newly_chosen(before, before.flip(1)).sum() == 0
    assert newly_chosen(after, before).sum() == mismatched


def test_a_winner_is_picked_where_the_router_would_choose_it_too() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    winners = torch.tensor([[1, 3], [2, 1]])
    assert winners_picked(logits, winners).tolist() == [[True, False], [True, True]]
    chosen = torch.tensor([[3, 1], [0, 2]])  # by a selection bias, say
    assert winners_picked(logits, winners, chosen).tolist() == [[True, True], [True, False]]
    everyone = torch.arange(4).expand(2, 4)
    assert winners_picked(logits, winners, everyone).tolist() == [[True, False], [True, True]]


def test_the_agreement_of_a_training_knows_the_selection_bias() -> None:
    moe = CompeteSMoE(8, num_experts=4, d_ff=8, warmup=0.0, omega=1.0, bias_step=0.1)
    plan_competitions(moe, 10)
    assert moe.selection_bias is not None
    moe.selection_bias.bias_E.copy_(torch.tensor([10.0, 10.0, 0.0, 0.0]))
    routing = moe(torch.randn(40, 8)).routing
    trained = Trained()
    trained.add(routing, limited=False)
    agreement = {name: value for name, _, value in trained.measured()}["router_agreement"]
    expected = (routing.competed_NK < 2).double().mean().item()
    assert agreement == pytest.approx(expected)
    by_logits = winners_picked(routing.logits_NE, routing.competed_NK).double().mean().item()
    assert by_logits != pytest.approx(expected)


def test_the_entropy_of_weights_is_that_of_each_token() -> None:
    weights = torch.tensor([[0.5, 0.5], [3.0, 1.0], [2.0, 0.0]])
    quarters = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert weight_entropies(weights).tolist() == pytest.approx([1.0, quarters, 0.0])
    assert weight_entropy(weights) == pytest.approx((1.0 + quarters) / 3)
