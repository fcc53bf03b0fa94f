"""Experts against plain modules, and their three ways of being applied against each other."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from tsattn.nn import FeedForward
from tsattn.nn.moe import (
    ConstantExperts,
    CopyExperts,
    Experts,
    FeedForwardExperts,
    LinearExperts,
    MixedExperts,
    ZeroExperts,
)

D, E = 8, 3
KINDS: dict[str, Callable[[], Experts]] = {
    "gelu": lambda: FeedForwardExperts(D, E, 12),
    "tanh": lambda: FeedForwardExperts(D, E, 12, activation="tanh"),
    "callable": lambda: FeedForwardExperts(D, E, 12, activation=torch.sin),
    "fused": lambda: FeedForwardExperts(16, E, 32),
    "linear": lambda: LinearExperts(D, E),
    "constant": lambda: ConstantExperts(D, E),
    "zero": lambda: ZeroExperts(D, E),
    "copy": lambda: CopyExperts(D, E),
    "mixed": lambda: MixedExperts([LinearExperts(D, 1), ZeroExperts(D, 1), CopyExperts(D, 1)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_ways_to_apply_experts_agree(kind: str) -> None:
    experts = KINDS[kind]()
    x, weights = torch.randn(10, experts.d_model), torch.rand(10, E)
    every = experts.every(x)
    pieces = torch.stack(experts.in_pieces([x] * E), dim=1)
    torch.testing.assert_close(every, pieces, rtol=1e-4, atol=1e-5)
    expected = torch.einsum("ne,ned->nd", weights, every)
    torch.testing.assert_close(experts.mixture(x, weights), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_without_tokens_is_given_an_empty_piece(kind: str) -> None:
    experts = KINDS[kind]()
    x = torch.randn(4, experts.d_model)
    pieces = experts.in_pieces([x, x[:0], x[:1]])
    assert [tuple(piece.shape) for piece in pieces] == [tuple(y.shape) for y in (x, x[:0], x[:1])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_without_tokens_does_not_decide_the_dtype_of_its_output(kind: str) -> None:
    experts = KINDS[kind]()
    x = torch.randn(4, experts.d_model)
    with torch.autocast("cpu", torch.bfloat16):
        every = [y.dtype for y in experts.in_pieces([x] * E)]
        for empty in range(E):
            pieces = experts.in_pieces([x[:0] if e == empty else x for e in range(E)])
            assert [y.dtype for y in pieces] == every


def test_feed_forward_experts_are_stacked_feed_forwards() -> None:
    experts, x = FeedForwardExperts(D, E, 12).double(), torch.randn(5, D).double()
    for e in range(E):
        dense = FeedForward(D, 12).double()
        with torch.no_grad():
            dense.expand.weight.copy_(experts.expand_weight[e])
            dense.expand.bias.copy_(experts.expand_bias[e])
            dense.contract.weight.copy_(experts.contract_weight[e])
            dense.contract.bias.copy_(experts.contract_bias[e])
        torch.testing.assert_close(experts.every(x)[:, e], dense(x))


@pytest.mark.parametrize("activation", ["identity", "relu", "silu", "tanh", "sigmoid"])
def test_any_activation_sits_between_the_two_maps(activation: str) -> None:
    experts, x = FeedForwardExperts(D, 1, 12, activation=activation), torch.randn(5, D)
    functions = {"identity": lambda h: h, "relu": F.relu, "silu": F.silu}
    function = functions.get(activation) or getattr(torch, activation)
    hidden = function(x @ experts.expand_weight[0].T + experts.expand_bias[0])
    expected = hidden @ experts.contract_weight[0].T + experts.contract_bias[0]
    torch.testing.assert_close(experts.every(x)[:, 0], expected)


def test_linear_experts_are_linear_maps() -> None:
    experts, x = LinearExperts(D, E), torch.randn(5, D)
    for e in range(E):
        expected = F.linear(x, experts.weight[e], experts.bias[e])
        torch.testing.assert_close(experts.every(x)[:, e], expected)


def test_light_experts_do_what_they_are_called() -> None:
    x = torch.randn(5, D)
    assert (ZeroExperts(D, E).every(x) == 0).all()
    assert (CopyExperts(D, E).every(x) == x[:, None]).all()
    constant = ConstantExperts(D, E)
    assert (constant.every(x) == constant.value).all()
    assert [list(kind(D, E).parameters()) for kind in (ZeroExperts, CopyExperts)] == [[], []]


def test_experts_begin_like_torchs_linear_maps() -> None:
    experts = FeedForwardExperts(100, 4, 25)
    for name, bound in (("expand", 0.1), ("contract", 0.2)):
        for part in ("weight", "bias"):
            largest = getattr(experts, f"{name}_{part}").abs().max().item()
            assert 0.9 * bound < largest <= bound


def test_hidden_units_of_experts_are_dropped_in_training_only() -> None:
    experts, x = FeedForwardExperts(D, 2, 400, dropout=0.5), torch.randn(3, D)
    hidden = experts.hidden(torch.ones(100, 400))
    assert 0.45 < (hidden == 0).float().mean() < 0.55
    experts.eval()
    torch.testing.assert_close(experts.every(x), experts.every(x))


def test_operations_of_a_slot_are_those_of_one_expert() -> None:
    assert FeedForwardExperts(D, E, 12).flops_per_slot == 2 * (2 * D * 12 + 12 + D)
    assert ZeroExperts(D, E).flops_per_slot == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FeedForwardExperts(8, 2, 0), "d_ff of an expert must be at least 1, got 0"),
        (lambda: LinearExperts(8, 0), "got d_model=8, num_experts=0"),
        (lambda: FeedForwardExperts(8, 2, 4, activation="tanhh"), "unknown value_activation"),
        (lambda: MixedExperts([ZeroExperts(8, 1), ZeroExperts(9, 1)]), r"one width, got \[8, 9\]"),
    ],
)
def test_experts_that_cannot_be_are_refused(build: Callable[[], Experts], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
