"""The networks against stored tensors of the published code."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tsattn.interop.published import from_state_dict, to_state_dict
from tsattn.models import ForecastNetwork
from tsattn.nn import MultiHeadActiveAttention
from tsattn.ops import Impl

FILES = (
    "patchtst_etth1",
    "patchtst_etth1_tanh",
    "patchtst_illness",
    "transformer",
    "transformer_gelu",
)


@dataclass(frozen=True)
class Published:
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}

    @property
    def inputs(self) -> list[Tensor]:
        given = self.below("input.")
        return [given[name] for name in ("x", "x_mark", "future_mark") if name in given]


@pytest.fixture(params=FILES)
def published(request: pytest.FixtureRequest, golden: Path) -> Published:
    with safe_open(golden / f"{request.param}.safetensors", framework="pt") as file:
        names = list(file.keys())
        return Published(
            json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in names}
        )


@pytest.fixture(params=[Impl.AUTO, Impl.REFERENCE, Impl.SDPA])
def network(request: pytest.FixtureRequest, published: Published) -> ForecastNetwork:
    network = from_state_dict(published.below("state."), published.config)
    for part in network.modules():
        if isinstance(part, MultiHeadActiveAttention):
            part.impl = request.param
    return network


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = actual.double() - expected.double()
    assert float(difference.norm()) <= tolerance * float(expected.double().norm())
    assert float(difference.abs().max()) <= tolerance * float(expected.abs().max())


def test_evaluation_gives_the_published_forecast(
    network: ForecastNetwork, published: Published
) -> None:
    with torch.no_grad():
        forecast = network(*published.inputs).mean
    assert_relative(forecast, published.tensors["eval.output"], 1e-5)


def test_training_gives_the_published_loss_and_gradients(
    network: ForecastNetwork, published: Published
) -> None:
    output = network.train()(*published.inputs).mean
    loss = torch.nn.functional.mse_loss(output, published.tensors["train.target"])
    loss.backward()
    assert_relative(output.detach(), published.tensors["train.output"], 1e-5)
    assert_relative(loss.detach(), published.tensors["train.loss"].squeeze(), 1e-5)
    expected = published.below("grad.")
    assert sum(g.numel() for g in expected.values()) == sum(p.numel() for p in network.parameters())
    largest = max(float(g.norm()) for g in expected.values())
    actual = gradients_by_published_name(network)
    errors = {
        name: float((actual[name].double() - gradient.double()).norm())
        / max(float(gradient.norm()), 1e-3 * largest)
        for name, gradient in expected.items()
    }
    assert {name: error for name, error in errors.items() if not error <= 1e-4} == {}


def gradients_by_published_name(network: ForecastNetwork) -> dict[str, Tensor]:
    """Put the gradients in the place of the weights and write them out."""
    gradients = copy.deepcopy(network)
    with torch.no_grad():
        for target, source in zip(gradients.parameters(), network.parameters(), strict=True):
            assert source.grad is not None
            target.copy_(source.grad)
    return to_state_dict(gradients)
