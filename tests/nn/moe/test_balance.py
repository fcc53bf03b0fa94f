"""Balance losses and the selection bias against their definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsattn.nn.moe import SelectionBias, balance_loss, router_z_loss
from tsattn.nn.moe.statistics import load_share, selection_entropy, weight_entropy
from tsattn.nn.stepping import after_step


@pytest.mark.parametrize("experts", [1, 4, 7])
def test_the_balance_loss_is_one_at_uniform_load_and_all_experts_at_one(experts: int) -> None:
    uniform = torch.full((12, experts), 1 / experts)
    assert balance_loss(uniform, torch.full((experts,), 3)).item() == pytest.approx(1.0)
    alone = torch.eye(experts)[:1].expand(12, -1)
    counts = torch.tensor([24] + [0] * (experts - 1))
    assert balance_loss(alone, counts).item() == pytest.approx(experts)


def test_the_balance_loss_is_its_formula() -> None:
    probabilities = torch.randn(9, 4).double().softmax(-1)
    counts = torch.tensor([5, 0, 9, 4])
    expected = 4 * sum(
        counts[i].item() / 18 * sum(probabilities[n, i].item() for n in range(9)) / 9
        for i in range(4)
    )
    assert balance_loss(probabilities, counts).item() == pytest.approx(expected)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any))
def test_the_balance_loss_is_at_least_one_where_probability_follows_load(loads: list[int]) -> None:
    counts = torch.tensor(loads)
    probabilities = (counts / counts.sum())[None].double()
    assert balance_loss(probabilities, counts).item() >= 1 - 1e-6


def test_the_z_loss_is_its_formula() -> None:
    logits = torch.randn(6, 3).double()
    expected = (logits.exp().sum(1).log() ** 2).mean()
    torch.testing.assert_close(router_z_loss(logits), expected)


def test_a_selection_bias_lifts_the_idle_and_lowers_the_busy() -> None:
    bias = SelectionBias(4, step=0.5)
    bias.observe(torch.tensor([4, 2, 1, 1]))
    bias.observe(torch.tensor([4, 2, 1, 1]))
    assert bias.bias_E.tolist() == [0, 0, 0, 0]
    after_step(torch.nn.Sequential(bias))
    assert bias.bias_E.tolist() == [-0.5, 0.0, 0.5, 0.5]
    after_step(bias)  # nothing was observed since
    assert bias.bias_E.tolist() == [-0.5, 0.0, 0.5, 0.5]
    bias.eval().observe(torch.tensor([0, 0, 0, 9]))
    bias.after_step()
    assert bias.bias_E.tolist() == [-0.5, 0.0, 0.5, 0.5]
    assert list(bias.state_dict()) == ["bias_E"]
    assert list(bias.parameters()) == []


def test_a_selection_bias_needs_a_step() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        SelectionBias(4, 0.0)


def test_entropies_are_in_bits() -> None:
    assert load_share(torch.tensor([1, 3])).tolist() == [0.25, 0.75]
    assert selection_entropy(torch.tensor([5, 5, 5, 5])) == pytest.approx(2.0)
    assert selection_entropy(torch.tensor([0, 7, 0, 0])) == 0.0
    weights = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    assert weight_entropy(weights) == pytest.approx(0.5)
