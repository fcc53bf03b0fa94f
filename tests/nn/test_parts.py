"""Parts by name: what a factory is made of, described and built again."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import nn

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn import FeedForward
from tsattn.nn.moe import (
    DenseToSparseGate,
    FeedForwardExperts,
    LinearGate,
    MoE,
    QuadraticMonomialGate,
    SigmoidGate,
)
from tsattn.nn.parts import PARTS, build_feedforward, build_part, describe_part, unrolled

NESTED = partial(
    MoE,
    gate=partial(DenseToSparseGate, gate=partial(QuadraticMonomialGate, rank=3), steps=7),
    experts=partial(FeedForwardExperts, d_ff=5),
    num_experts=4,
)


def through_a_parser(make: Any, kind: type[nn.Module], **given: Any) -> Any:
    return make(kind, **given)


def test_a_part_is_built_again_from_its_description() -> None:
    description = describe_part(NESTED)
    assert description is not None
    assert description["class"] == "MoE"
    gate = description["arguments"]["gate"]
    assert gate["class"] == "DenseToSparseGate"
    assert gate["arguments"]["gate"] == {"class": "QuadraticMonomialGate", "arguments": {"rank": 3}}
    assert "d_model" not in description["arguments"]
    again = build_part(description)
    assert describe_part(again) == description
    shapes = {name: p.shape for name, p in NESTED(16).state_dict().items()}
    assert {name: p.shape for name, p in again(16).state_dict().items()} == shapes


def test_a_description_holds_names_and_numbers_alone() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(plain(part) for part in value.values())
        return type(value) in (str, int, float, bool, type(None))

    assert plain(describe_part(NESTED))
    assert describe_part(MoE) == describe_part(partial(MoE, num_experts=8))


@pytest.mark.parametrize(
    "factory",
    [
        lambda d_model: MoE(d_model),
        nn.Linear,
        partial(MoE, gate=lambda d, e: LinearGate(d, e)),
        partial(MoE, activation=torch.sin),
        partial(MoE, activation=cast(Any, object())),
    ],
)
def test_what_has_no_name_has_no_description(factory: Callable[..., nn.Module]) -> None:
    assert describe_part(factory) is None


def test_a_name_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown part 'os.system'; expected one of FeedForward"):
        build_part({"class": "os.system", "arguments": {}})
    with pytest.raises(TypeError):
        PARTS["Own"] = nn.Linear  # pyright: ignore


def test_partials_are_unrolled_to_the_class_behind_a_parser() -> None:
    parsed = partial(through_a_parser, partial, MoE, num_experts=4)
    assert unrolled(partial(parsed, top_k=1)) == (MoE, {"num_experts": 4, "top_k": 1})


def test_a_network_hands_on_its_sizes_where_they_are_left_open() -> None:
    moe = build_feedforward(partial(MoE, num_experts=4), 16, 32, 0.25)
    assert isinstance(moe, MoE)
    assert isinstance(moe.experts, FeedForwardExperts)
    assert (moe.experts.d_ff, moe.experts.dropout.p) == (16, 0.25)
    moe = build_feedforward(partial(MoE, dropout=0.0, active_d_ff=8), 16, 32, 0.25)
    assert isinstance(moe, MoE)
    assert isinstance(moe.experts, FeedForwardExperts)
    assert (moe.experts.d_ff, moe.experts.dropout.p) == (4, 0.0)
    dense = build_feedforward(None, 16, 32, 0.25)
    assert isinstance(dense, FeedForward)
    assert (dense.expand.out_features, dense.dropout.p) == (32, 0.25)
    own = build_feedforward(lambda width: nn.Linear(width, width), 16, 32, 0.25)
    assert isinstance(own, nn.Linear)


def test_the_dense_feed_forward_takes_the_sizes_of_the_network_too() -> None:
    for factory, d_ff, rate in (
        (FeedForward, 32, 0.25),
        (partial(FeedForward, d_ff=64), 64, 0.25),
        (partial(FeedForward, dropout=0.0), 32, 0.0),
        (partial(FeedForward, d_ff=None, dropout=None), 32, 0.25),
        (lambda d_model, d_ff, dropout: FeedForward(d_model, d_ff, dropout), 32, 0.25),
        (lambda d_model, d_ff=8, dropout=0.1: FeedForward(d_model, d_ff, dropout), 8, 0.1),
    ):
        dense = build_feedforward(factory, 16, 32, 0.25)
        assert isinstance(dense, FeedForward)
        assert (dense.expand.out_features, dense.dropout.p) == (d_ff, rate)
    alone = FeedForward(16)
    assert (alone.expand.out_features, alone.dropout.p) == (64, 0.0)


@pytest.mark.parametrize("kind", [PatchTST, EncoderDecoderTransformer])
def test_the_dense_feed_forward_by_its_name_is_the_default(kind: type[ForecastNetwork]) -> None:
    networks: list[ForecastNetwork] = []
    for factory in (None, FeedForward, build_part(cast(Any, describe_part(FeedForward)))):
        torch.manual_seed(4)
        networks.append(kind(2, 24, 6, d_model=16, num_heads=4, d_ff=32, feedforward=factory))  # pyright: ignore
    usual, *others = networks
    for network in others:
        assert str(network) == str(usual)
        for name, value in usual.state_dict().items():
            assert torch.equal(network.state_dict()[name], value)


@pytest.mark.unchecked
def test_what_builds_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="feedforward must build a module"):
        build_feedforward(lambda width: width, 16, 32, 0.0)  # pyright: ignore


NETWORKS: dict[str, Callable[[Any], ForecastNetwork]] = {
    "PatchTST": lambda factory: PatchTST(
        2, 24, 6, num_layers=3, d_model=16, num_heads=4, d_ff=32, feedforward=factory,
        value_activation="tanh",
    ),
    "prenorm": lambda factory: PatchTST(
        2, 24, 6, num_layers=3, d_model=16, num_heads=4, d_ff=32, feedforward=factory, prenorm=True
    ),
    "Transformer": lambda factory: EncoderDecoderTransformer(
        2, 24, 6, d_model=16, num_heads=4, d_ff=32, calendar_features=0, feedforward=factory,
        value_activation="silu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_object_works_in_every_network(name: str) -> None:
    network = NETWORKS[name](partial(MoE, gate=SigmoidGate, num_experts=4, router_z=0.1))
    layers = [module for module in network.modules() if isinstance(module, MoE)]
    assert len(layers) == 3
    losses: list[dict[str, torch.Tensor]] = []
    for moe in layers:
        moe.register_forward_hook(lambda module, inputs, fed: losses.append(fed.losses))
    forecast = network(torch.randn(5, 24, 2))
    for key in ("balance", "router_z"):
        expected = torch.stack([part[key] for part in losses]).sum()
        torch.testing.assert_close(forecast.losses[key], expected)
    forecast.mean.square().sum().backward()
    for moe in layers:
        assert all(p.grad is not None for p in moe.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_a_mixture_has_no_losses(name: str) -> None:
    assert NETWORKS[name](None)(torch.randn(5, 24, 2)).losses == {}
