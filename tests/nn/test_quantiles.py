"""Quantiles of networks: in order for any weights, and in the unit of the window."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn import QuantileLevels
from tsattn.nn.quantiles import central_pairs
from tsattn.training.checkpoint import build_network, describe_network

LEVELS = [0.05, 0.3, 0.5, 0.9]
SIZES: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8}


def patchtst(**options: Any) -> PatchTST:
    given: dict[str, Any] = {**SIZES, "quantiles": LEVELS, **options}
    return PatchTST(3, 20, 5, patch_length=4, num_layers=1, **given)


def transformer(**options: Any) -> EncoderDecoderTransformer:
    given: dict[str, Any] = {**SIZES, "quantiles": LEVELS, "calendar_features": 0, **options}
    return EncoderDecoderTransformer(3, 20, 5, encoder_layers=1, **given)


BUILT = [
    patchtst,
    lambda: patchtst(revin_affine=True),
    lambda: patchtst(individual_head=True, revin=False),
    lambda: patchtst(subtract_last=True, quantiles=[0.5]),
    transformer,
]


@pytest.mark.parametrize("build", BUILT)
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_quantiles_never_cross_whatever_the_weights(build: Any, scale: float) -> None:
    network: ForecastNetwork = build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, scale)
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            forecast = network.train(mode)(100 * torch.randn(6, 20, 3) + 1000)
        quantiles = forecast.quantiles
        assert quantiles is not None
        assert network.quantiles is not None
        assert quantiles.shape == (6, 5, 3, len(network.quantiles))
        assert (quantiles[..., 1:] >= quantiles[..., :-1]).all()
        place = network.quantiles.index(0.5)
        torch.testing.assert_close(quantiles[..., place], forecast.mean, rtol=0, atol=0)


def test_evaluation_in_parts_gives_the_same_quantiles() -> None:
    network = patchtst().eval()
    x_BTC = torch.randn(4, 20, 3)
    with_gradients = network(x_BTC).quantiles
    with torch.no_grad():
        in_parts = network(x_BTC).quantiles
    assert with_gradients is not None
    torch.testing.assert_close(in_parts, with_gradients.detach(), rtol=1e-5, atol=1e-6)


def test_affine_weight_below_zero_turns_the_median_but_not_the_order() -> None:
    """In float64 by hand: the median passes the affine map, the distances only its size."""
    network = patchtst(revin_affine=True).double().eval()
    assert network.revin is not None
    assert network.levels is not None
    with torch.no_grad():
        network.revin.weight.copy_(torch.tensor([-2.0, 0.5, -0.25]))  # pyright: ignore
        network.revin.bias.copy_(torch.tensor([0.3, -1.0, 2.0]))  # pyright: ignore
    x_BTC = 5 * torch.randn(2, 20, 3, dtype=torch.float64) + 7
    outputs: list[torch.Tensor] = []

    def note(module: Any, given: Any, made: Any) -> None:
        outputs.append(made)

    network.head.register_forward_hook(note)
    forecast = network(x_BTC)
    raw_BCHQ = outputs[0].detach().reshape(2, 3, 5, 4)
    level, spread = x_BTC.mean(1), (x_BTC.var(1, correction=0) + 1e-5).sqrt()
    weight, bias = network.revin.weight, network.revin.bias  # pyright: ignore
    gap = torch.log1p(raw_BCHQ.exp())
    median = (raw_BCHQ[..., 2] - bias[:, None]) / weight[:, None]  # pyright: ignore
    size = weight.abs()[:, None]  # pyright: ignore
    by_hand = [
        median - (gap[..., 1] + gap[..., 0]) / size,
        median - gap[..., 1] / size,
        median,
        median + gap[..., 3] / size,
    ]
    expected = torch.stack(by_hand, -1) * spread[:, :, None, None] + level[:, :, None, None]
    assert forecast.quantiles is not None
    torch.testing.assert_close(forecast.quantiles, expected.transpose(1, 2), rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4))
def test_outputs_become_a_median_and_sums_of_distances(outputs: list[float]) -> None:
    levels = QuantileLevels.of([0.1, 0.25, 0.5, 0.75])
    assert levels is not None
    made = levels.join(*levels.split(torch.tensor(outputs))).double()
    lowest, lower, median, upper = torch.tensor(outputs, dtype=torch.float64)
    near, far, above = (torch.nn.functional.softplus(one) for one in (lower, lowest, upper))
    expected = torch.stack([median - near - far, median - near, median, median + above])
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-4)
    assert (made.diff() >= 0).all()


@pytest.mark.parametrize(
    ("quantiles", "said"),
    [
        ([], "lack 0.5"),
        ([0.1, 0.9], "lack 0.5: the median is the point forecast; add it"),
        ([0.5, 0.1], "must increase strictly"),
        ([0.5, 0.5], "must increase strictly"),
        ([0.0, 0.5], r"within \(0, 1\), got \[0.0, 0.5\]"),
        ([0.5, 1.0], r"within \(0, 1\)"),
        ([0.5, float("nan")], r"within \(0, 1\)"),
        ([10, 50, 90], r"for example \[0.1, 0.5, 0.9\]"),
    ],
)
def test_quantiles_that_cannot_be_are_refused(quantiles: list[float], said: str) -> None:
    for build in (patchtst, transformer):
        with pytest.raises(ValueError, match=said):
            build(quantiles=quantiles)


def test_pairs_are_those_of_equal_tails_from_the_widest_inwards() -> None:
    assert central_pairs([0.05, 0.1, 0.3, 0.5, 0.7, 0.9]) == [(1, 5), (2, 4)]
    assert central_pairs([0.5]) == []


def test_point_networks_are_described_as_before(root: Path) -> None:
    """A checkpoint that was kept before quantiles existed has the same record and weights."""
    kept = root / "results/checkpoints/patchtst"
    file = next(kept.glob("table2-patchtst-illness-identity-*.safetensors"))
    with safe_open(file, framework="pt") as opened:
        import json

        record = json.loads(opened.metadata()["tsattn"])
        shapes = {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    network = build_network(record["network"])
    assert describe_network(network) == record["network"]
    assert {name: list(one.shape) for name, one in network.state_dict().items()} == shapes
    assert network.quantiles is None


def test_networks_with_quantiles_are_described_and_built_again() -> None:
    for network in (patchtst(), transformer()):
        described = describe_network(network)
        assert described["arguments"]["quantiles"] == LEVELS
        assert described["not_stored"] == []
        again = build_network(described)
        again.load_state_dict(network.state_dict())
        assert again.quantiles == tuple(LEVELS)
