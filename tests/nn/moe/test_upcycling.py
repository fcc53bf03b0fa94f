"""Sparse upcycling: mixtures that start as the dense network, and what cannot."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn import FeedForward
from tsattn.nn.moe import CompeteSMoE, LinearExperts, MoE, plan_competitions, upcycle

MIXED = partial(MoE, num_experts=4, top_k=2, d_ff=16)
COMPETING = partial(CompeteSMoE, num_experts=4, top_k=2, d_ff=16, warmup=0.0, omega=1.0)
NETWORKS: dict[str, Callable[[Any], ForecastNetwork]] = {
    "PatchTST": lambda feedforward: PatchTST(
        2, 24, 6, d_model=8, num_heads=2, d_ff=16, dropout=0.0, feedforward=feedforward
    ),
    "Transformer": lambda feedforward: EncoderDecoderTransformer(
        2, 24, 6, d_model=8, num_heads=2, d_ff=16, dropout=0.0, calendar_features=0,
        feedforward=feedforward,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("factory", [MIXED, COMPETING], ids=["mixture", "competing"])
def test_an_upcycled_network_is_the_dense_one_at_first(name: str, factory: Any) -> None:
    dense, sparse = NETWORKS[name](None), NETWORKS[name](factory)
    upcycle(sparse, dense.state_dict())
    x = torch.randn(5, 24, 2)
    with torch.inference_mode():
        expected = dense.eval()(x).mean
        torch.testing.assert_close(sparse.eval()(x).mean, expected, rtol=1e-4, atol=1e-5)


def test_an_upcycled_layer_is_the_dense_one_in_a_competition_too() -> None:
    dense, sparse = FeedForward(8, 16), COMPETING(8)
    upcycle(sparse, dense.state_dict())
    plan_competitions(sparse, 10)
    x = torch.randn(20, 8)
    fed = sparse(x)
    assert fed.routing.competed_NK is not None
    torch.testing.assert_close(fed.output, dense(x))
    torch.testing.assert_close(fed.losses["diversity"], torch.tensor(0.5))  # all alike


def test_gates_stay_as_they_are_and_experts_are_copies_of_their_own() -> None:
    dense, sparse = NETWORKS["PatchTST"](None), NETWORKS["PatchTST"](MIXED)
    gates = {k: v.clone() for k, v in sparse.state_dict().items() if ".gate." in k}
    upcycle(sparse, dense.state_dict())
    state = sparse.state_dict()
    assert gates
    assert all(torch.equal(state[name], value) for name, value in gates.items())
    stack = state["layers.0.feedforward.experts.expand_weight"]
    weight = dense.state_dict()["layers.0.feedforward.expand.weight"]
    assert all(torch.equal(part, weight) for part in stack)
    with torch.no_grad():
        stack[0] += 1  # the others are none of its views
    assert torch.equal(stack[1], weight)
    assert torch.equal(state["head.weight"], dense.state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (partial(MIXED, d_ff=8), r"expand\.weight of the dense network is \[16, 8\], an expert of"),
        (partial(MIXED, activation="tanh"), "have the activation 'tanh', dense .* have 'gelu'"),
        (partial(MIXED, experts=LinearExperts), "has LinearExperts, which cannot start"),
        (partial(MIXED, shared_experts=1), "has shared experts, which cannot start"),
        (partial(MIXED, zero_experts=1), "has MixedExperts, which cannot start"),
        (None, "PatchTST has no mixtures of experts to upcycle to"),
    ],
)
def test_experts_that_cannot_be_copies_are_refused(factory: Any, message: str) -> None:
    dense, sparse = NETWORKS["PatchTST"](None), NETWORKS["PatchTST"](factory)
    before = {name: value.clone() for name, value in sparse.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        upcycle(sparse, dense.state_dict())
    assert all(torch.equal(before[name], value) for name, value in sparse.state_dict().items())


def test_weights_of_another_network_are_refused_by_name() -> None:
    sparse = NETWORKS["PatchTST"](MIXED)
    with pytest.raises(ValueError, match=r"no layers\.0\.feedforward\.expand\.weight, the start"):
        upcycle(sparse, NETWORKS["Transformer"](None).state_dict())
    longer = PatchTST(2, 24, 9, d_model=8, num_heads=2, d_ff=16)
    with pytest.raises(
        ValueError, match=r"another one: head\.bias \[9\] instead of \[6\]; head\.w"
    ):
        upcycle(sparse, longer.state_dict())
    state = NETWORKS["PatchTST"](None).state_dict()
    del state["head.bias"]
    with pytest.raises(ValueError, match=r"head\.bias is missing instead of \[6\]"):
        upcycle(sparse, state)
    with pytest.raises(ValueError, match="Linear has no mixtures"):
        upcycle(nn.Linear(2, 2), {})
