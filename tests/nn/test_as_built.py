"""Parts that are watched, replaced, or lack something: called as themselves, with their results."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_full_backward_pre_hook
from torch.nn.utils import parametrize

from tsattn.models import PatchTST
from tsattn.nn import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    MultiHeadActiveAttention,
    token_norm,
)
from tsattn.nn.as_built import is_as_built
from tsattn.nn.linear import Linear
from tsattn.nn.moe import MoE
from tsattn.nn.norm import NormKind, TokenBatchNorm, normalise_sum

D = 16


def encoder_layer(norm: NormKind = "batch", *, prenorm: bool = False) -> EncoderLayer:
    return EncoderLayer(
        MultiHeadActiveAttention(D, 2, value_activation="tanh"),
        FeedForward(D, 32, 0.1),
        token_norm(norm, D),
        token_norm(norm, D),
        dropout=0.1,
        attention_dropout=0.2,
        prenorm=prenorm,
    )


def decoder_layer() -> DecoderLayer:
    attentions = [MultiHeadActiveAttention(D, 2) for _ in range(2)]
    return DecoderLayer(attentions[0], attentions[1], FeedForward(D, 32), D, dropout=0.1)


def mixture(activation: str) -> MoE:
    return MoE(D, num_experts=4, activation=activation, dropout=0.1, computing="loop")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": encoder_layer,
    "layer norm": lambda: encoder_layer("layer"),
    "norm first": lambda: encoder_layer(prenorm=True),
    "decoder": decoder_layer,
    "mixture": lambda: mixture("gelu"),
    "tanh mixture": lambda: mixture("tanh"),
}


def called(layer: nn.Module, *, backward: bool = False) -> tuple[Tensor, ...]:
    x = torch.randn(3, 5, D, requires_grad=True)
    outputs = layer(x, x) if isinstance(layer, DecoderLayer) else layer(x)
    if backward:
        outputs[0].square().sum().backward()
    return outputs


def parts_of(layer: nn.Module) -> dict[str, nn.Module]:
    """Return what computes something, without what holds it together or its parameters alone."""
    leaves = {name: part for name, part in layer.named_modules() if not list(part.children())}
    assert leaves
    return leaves


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("how", ["forward", "pre-forward", "backward", "pre-backward"])
def test_every_part_that_is_watched_is_called(kind: str, how: str) -> None:
    register = {
        "forward": nn.Module.register_forward_hook,
        "pre-forward": nn.Module.register_forward_pre_hook,
        "backward": nn.Module.register_full_backward_hook,
        "pre-backward": nn.Module.register_full_backward_pre_hook,
    }[how]
    names = list(parts_of(LAYERS[kind]()))
    for name in names:
        layer, seen = LAYERS[kind](), list[str]()
        register(layer.get_submodule(name), lambda *_, name=name, seen=seen: seen.append(name))
        called(layer, backward=True)
        assert seen, name


def test_a_hook_of_all_modules_sees_every_part() -> None:
    seen = set[nn.Module]()

    def see(part: nn.Module, grad: Any) -> None:
        seen.add(part)

    layer = encoder_layer()
    handle = register_module_full_backward_pre_hook(see)
    try:
        called(layer, backward=True)
    finally:
        handle.remove()
    assert set(parts_of(layer).values()) <= seen


def test_a_watched_dropout_decides_what_is_dropped() -> None:
    def drop_all(part: nn.Module, given: Any, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    layer, x = encoder_layer(prenorm=True), torch.randn(3, 5, D)
    layer.dropout.register_forward_hook(drop_all)
    torch.testing.assert_close(layer(x).tokens, x)  # nothing is left of the branches


def test_any_dropout_of_torch_takes_the_place_of_ours() -> None:
    layer, x = encoder_layer(), torch.randn(3, 5, D)
    expected = layer.eval()(x).tokens
    for name in ("dropout", "attention_dropout", "feedforward.dropout"):
        layer.set_submodule(name, nn.Dropout(0.5).eval())
    torch.testing.assert_close(layer(x).tokens, expected)
    assert not torch.allclose(layer.train()(x).tokens, expected)


def without_bias(layer: nn.Module, name: str) -> None:
    old = layer.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, old.out_features, bias=False)
    new.weight = old.weight
    layer.set_submodule(name, new)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name", ["attention.key", "attention.out", "feedforward.expand", "feedforward.contract"]
)
def test_a_map_without_a_bias_is_one_whose_bias_is_zero(name: str, training: bool) -> None:
    layer, x = encoder_layer("layer").train(training), torch.randn(3, 5, D)
    layer.feedforward.dropout = nn.Dropout(0.0)
    nn.init.zeros_(layer.get_parameter(f"{name}.bias"))
    torch.manual_seed(1)
    expected = layer(x).tokens
    without_bias(layer, name)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x).tokens, expected)


@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(D, bias=False),
        nn.LayerNorm(D, elementwise_affine=False),
        nn.LayerNorm([5, D]),
        nn.Identity(),
    ],
    ids=["no bias", "nothing learned", "two axes", "none"],
)
def test_a_norm_that_lacks_something_normalises_the_sum(norm: nn.Module) -> None:
    residual, branch = torch.randn(3, 5, D), torch.randn(3, 5, D)
    found = normalise_sum(norm, residual, branch, nn.Dropout(0.0))
    torch.testing.assert_close(found, norm(residual + branch))


@pytest.mark.parametrize(
    "options",
    [
        {"affine": False},
        {"track_running_stats": False},
        {"momentum": None},
        {"affine": False, "momentum": None},
    ],
    ids=str,
)
def test_every_batch_norm_counts_as_torchs_own(options: dict[str, Any]) -> None:
    ours, theirs = TokenBatchNorm(D, **options), nn.BatchNorm1d(D, **options)
    for training in (True, True, True, False):
        for norm in (ours, theirs):
            norm.train(training)
        residual, branch = torch.randn(3, 5, D) + 2, torch.randn(3, 5, D)
        expected = theirs((residual + branch).flatten(0, 1)).view_as(residual)
        torch.testing.assert_close(normalise_sum(ours, residual, branch, nn.Dropout(0.0)), expected)
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)


def test_statistics_that_are_no_longer_tracked_stay_as_they_are() -> None:
    norm, x = TokenBatchNorm(D), torch.randn(3, 5, D)
    norm.track_running_stats = False
    normalise_sum(norm, x, x, nn.Dropout(0.0))
    assert (norm.running_mean == 0).all()
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("context", [24, 4 * D - 4])  # patches fewer than, and as many as features
def test_synchronised_batch_norms_normalise_features(prenorm: bool, context: int) -> None:
    network = PatchTST(
        2, context, 6, patch_length=4, stride=4, d_model=D, num_heads=2, d_ff=32, dropout=0.0,
        prenorm=prenorm,
    )  # fmt: skip
    other = copy.deepcopy(network)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(other)
    assert any(isinstance(part, nn.SyncBatchNorm) for part in other.modules())
    x = torch.randn(5, context, 2)
    torch.testing.assert_close(other(x).mean, network(x).mean)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(other.get_buffer(name), buffer)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x).mean, network.eval()(x).mean)


def test_a_parametrised_part_is_not_as_built() -> None:
    part = Linear(4, 4)
    assert is_as_built(part, Linear)
    assert not is_as_built(part, nn.Linear)
    parametrize.register_parametrization(part, "weight", nn.Identity())
    assert not is_as_built(part, Linear)
