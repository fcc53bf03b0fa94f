"""Networks whose layers are evaluated all at once: the same forecast, and nobody overlooked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tests.calls import Calls
from tsattn.models import PatchTST
from tsattn.nn import FeedForward
from tsattn.nn.norm import TokenBatchNorm
from tsattn.ops import build
from tsattn.ops.encoder import fused_cpu

SIZES: dict[str, Any] = {"d_model": 32, "num_heads": 4, "d_ff": 64, "value_activation": "tanh"}


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not build.is_ready():
        pytest.skip(build.status().reason)
    if not fused_cpu.is_compiled(32, 64, torch.float32):
        pytest.skip("this processor's layers are called one by one")


def trained(**options: Any) -> PatchTST:
    """A network whose normalisations have seen something."""
    network = PatchTST(3, 48, 12, **(SIZES | options))
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 48, 3).cumsum(1))
    return network.eval()


def is_taken_at_once(network: nn.Module, x: torch.Tensor) -> bool:
    with torch.no_grad(), Calls() as calls:
        network(x)
    return "tsattn::encode" in calls.names


@pytest.mark.parametrize(
    "options",
    [{}, {"residual_scores": False}, {"num_layers": 1}, {"d_model": 16, "d_ff": 48}],
    ids=str,
)
def test_the_forecast_is_that_of_layers_called_one_by_one(options: dict[str, Any]) -> None:
    network, x = trained(**options), torch.randn(5, 48, 3).cumsum(1)
    expected = network(x).mean.detach()  # gradients are recorded: layer by layer
    assert is_taken_at_once(network, x)
    with torch.no_grad():
        torch.testing.assert_close(network(x).mean, expected)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(x).mean, expected, rtol=0.05, atol=0.05)


def test_changed_weights_are_seen() -> None:
    network, x = trained(), torch.randn(2, 48, 3)
    with torch.no_grad():
        before = network(x).mean
        network.get_parameter("layers.1.feedforward.contract.weight").mul_(2)
        network.get_buffer("layers.2.attention_norm.running_mean").add_(0.3)
        after = network(x).mean
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, network(x).mean.detach())


def replace_forward(name: str) -> Callable[[PatchTST], Any]:
    def change(network: PatchTST) -> None:
        part = network.get_submodule(name)
        part.forward = part.forward

    return change


def subclass(name: str) -> Callable[[PatchTST], Any]:
    def change(network: PatchTST) -> None:
        part = network.get_submodule(name)
        part.__class__ = type("Mine", (type(part),), {})

    return change


def replace(name: str, make: Callable[[], nn.Module]) -> Callable[[PatchTST], Any]:
    return lambda network: network.set_submodule(name, make().eval())


@dataclass
class Shift:
    """An activation that cannot be hashed."""

    by: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Add ``by``."""
        return x + self.by


NORM, FED, ATTENTION = "layers.1.attention_norm", "layers.1.feedforward", "layers.0.attention"


def watch(name: str) -> Callable[[PatchTST], Any]:
    return lambda network: network.get_submodule(name).register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change",
    [
        *map(watch, ["layers.0", "layers.1.attention", "layers.2.attention.key"]),
        *map(watch, ["layers.0.feedforward", "layers.1.feedforward.expand"]),
        watch("layers.2.feedforward_norm"),
        *map(
            replace_forward, ["layers.1", ATTENTION, f"{ATTENTION}.key", FED, f"{FED}.expand", NORM]
        ),
        *map(subclass, ["layers.1", ATTENTION, f"{ATTENTION}.key", FED, f"{FED}.expand", NORM]),
        *map(subclass, [f"{FED}.dropout", "layers.0.dropout", "layers.0.attention_dropout"]),
        replace(NORM, lambda: TokenBatchNorm(32, affine=False)),
        replace(NORM, lambda: TokenBatchNorm(32, track_running_stats=False)),
        replace(FED, lambda: FeedForward(32, 128)),
        replace(f"{ATTENTION}.out", lambda: nn.Linear(32, 32, bias=False)),
        replace(f"{ATTENTION}.out", nn.Identity),
        lambda network: network.layers[0].attention_dropout.train(),
        lambda network: setattr(network.layers[1].attention, "value_activation", Shift(1.0)),
        lambda network: network.layers[1].feedforward_norm.train(),
        lambda network: setattr(network.layers[1], "keep_scores", False),
        lambda network: setattr(network.layers[1].attention, "value_activation", "relu"),
        lambda network: setattr(network.layers[0].attention, "impl", "sdpa"),
        lambda network: setattr(network.layers[0], "feedforward", nn.Identity()),
    ],
)
def test_a_part_that_is_watched_or_another_is_called_as_itself(
    change: Callable[[PatchTST], Any],
) -> None:
    network, x = trained(), torch.randn(2, 48, 3)
    change(network)
    assert not is_taken_at_once(network, x)


def test_hooks_of_all_modules_are_called() -> None:
    network, seen = trained(), list[str]()
    handle = register_module_forward_hook(lambda part, *_: seen.append(type(part).__name__))
    try:
        assert not is_taken_at_once(network, torch.randn(2, 48, 3))
    finally:
        handle.remove()
    assert "EncoderLayer" in seen


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"},
        {"prenorm": True},
        {"value_activation": torch.sin},
        {"attention_impl": "sdpa"},
    ],
    ids=["layer norm", "norm first", "a callable", "torch's attention"],
)
def test_networks_of_another_kind_are_evaluated_layer_by_layer(options: dict[str, Any]) -> None:
    assert not is_taken_at_once(trained(**options), torch.randn(2, 48, 3))
