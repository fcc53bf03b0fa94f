"""What every network does with steps that nobody observed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tsattn.models import NETWORKS, ForecastNetwork, PatchTST
from tsattn.nn import RevIN
from tsattn.nn.embed import PatchEmbedding
from tsattn.nn.norm import last_value, window_mean

CONTEXT, HORIZON, CHANNELS = 21, 5, 3
SMALL: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 16}
PATCHES: dict[str, Any] = SMALL | {"patch_length": 4, "num_layers": 2}
EVERY: dict[str, tuple[str, dict[str, Any]]] = {
    "PatchTST": ("PatchTST", PATCHES),
    "PatchTST affine": ("PatchTST", PATCHES | {"revin_affine": True, "subtract_last": True}),
    "PatchTST without RevIN": ("PatchTST", PATCHES | {"revin": False, "end_padding": False}),
    "PatchTST by channel": ("PatchTST", PATCHES | {"individual_head": True, "norm": "layer"}),
    "Transformer": ("EncoderDecoderTransformer", SMALL),
    "DLinear": ("DLinear", {"kernel_size": 5}),
    "LastValue": ("LastValue", {}),
    "SeasonalNaive": ("SeasonalNaive", {"season": 6}),
    "WindowMean": ("WindowMean", {}),
}


def built(case: str) -> ForecastNetwork:
    name, options = EVERY[case]
    return NETWORKS[name](CHANNELS, CONTEXT, HORIZON, **options).eval()


def inputs(batch: int = 4) -> list[Tensor]:
    marks = torch.rand(batch, CONTEXT, 4) - 0.5, torch.rand(batch, HORIZON, 4) - 0.5
    return [torch.randn(batch, CONTEXT, CHANNELS) + 2.0, *marks]


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", EVERY)
def test_all_observed_is_the_plain_path_to_the_last_bit(case: str, grad: bool) -> None:
    network, given = built(case), inputs()
    with torch.set_grad_enabled(grad):
        plain = network(*given).mean
        masked = network(*given, observed_BTC=torch.ones(4, CONTEXT, CHANNELS, dtype=torch.bool))
    assert torch.equal(masked.mean, plain)


@pytest.mark.parametrize("case", EVERY)
def test_all_observed_trains_as_the_plain_path_does(case: str) -> None:
    network, given = built(case).train(), inputs()
    if not list(network.parameters()):
        pytest.skip("nothing to train")
    every = torch.ones(4, CONTEXT, CHANNELS, dtype=torch.bool)
    gradients: list[list[Tensor]] = []
    for options in ({}, {"observed_BTC": every}):
        network.zero_grad()
        torch.manual_seed(5)
        network(*given, **options).mean.square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for plain, masked in zip(*gradients, strict=True):
        torch.testing.assert_close(masked, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", EVERY)
def test_what_was_not_observed_does_not_matter(case: str) -> None:
    network, (x, *marks) = built(case), inputs()
    observed = torch.rand(x.shape) < 0.6
    observed[0, :, 1] = False  # a channel without any value
    observed[1] = False  # a window without any
    forecasts = [
        network(torch.where(observed, x, held), *marks, observed_BTC=observed).mean
        for held in (0.0, 1e6)
    ]
    assert torch.equal(*forecasts)
    assert forecasts[0].isfinite().all()


@pytest.mark.parametrize("case", EVERY)
def test_masks_go_with_mixed_precision(case: str) -> None:
    network, (x, *marks) = built(case).train(), inputs()
    observed = torch.rand(x.shape) < 0.6
    observed[0, :, 1] = False
    observed[1] = False
    with torch.autocast("cpu", torch.bfloat16):
        mean = network(x, *marks, observed_BTC=observed).mean
    assert mean.isfinite().all()
    if mean.requires_grad:
        mean.float().square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("case", EVERY)
def test_gaps_of_one_window_leave_the_others_alone(case: str) -> None:
    network, given = built(case), inputs()
    observed = torch.ones(4, CONTEXT, CHANNELS, dtype=torch.bool)
    observed[2, 14:] = False
    with torch.no_grad():
        plain, masked = network(*given).mean, network(*given, observed_BTC=observed).mean
    others = [0, 1, 3]
    assert torch.equal(masked[others], plain[others])
    assert not torch.equal(masked[2], plain[2])


@pytest.mark.unchecked
def test_a_mask_of_another_shape_is_refused() -> None:
    x, *marks = inputs()
    with pytest.raises(ValueError, match=r"observed steps of the window's shape \[4, 21, 3\]"):
        built("DLinear")(x, *marks, observed_BTC=torch.ones(4, CONTEXT, 1, dtype=torch.bool))


@pytest.mark.parametrize("subtract_last", [False, True])
def test_statistics_of_a_window_are_those_of_its_observed_steps(subtract_last: bool) -> None:
    revin = RevIN(2, subtract_last=subtract_last)
    x = torch.randn(3, 30, 2, dtype=torch.float64) * 4 + 7
    observed = torch.rand(3, 30, 2) < 0.5
    normal, statistics = revin.normalise(x, observed)
    for b in range(3):
        for c in range(2):
            own = x[b, observed[b, :, c], c]
            level = own[-1] if subtract_last else own.mean()
            spread = torch.sqrt(own.var(correction=0) + revin.eps)
            torch.testing.assert_close(statistics.level_B1C[b, 0, c], level)
            torch.testing.assert_close(statistics.spread_B1C[b, 0, c], spread)
    assert (normal[~observed] == 0).all()


def test_a_missing_step_is_at_the_level_also_behind_weight_and_bias() -> None:
    revin = RevIN(1, affine=True)
    assert revin.bias is not None
    with torch.no_grad():
        revin.bias.fill_(3.0)
    observed = torch.tensor([True, False, True]).view(1, 3, 1)
    normal, _ = revin.normalise(torch.tensor([1.0, 9.0, 3.0]).view(1, 3, 1), observed)
    assert normal[0, 1, 0].item() == pytest.approx(3.0)


def test_mean_and_last_value_without_an_observed_step_are_zero() -> None:
    x, observed = torch.randn(2, 5, 3), torch.zeros(2, 5, 3, dtype=torch.bool)
    assert (window_mean(x, observed) == 0).all()
    assert (last_value(x, observed) == 0).all()


def test_a_patch_is_scaled_by_its_steps_over_those_observed() -> None:
    embed = PatchEmbedding(8, 4, 4, 6, end_padding=False).eval()
    x = torch.randn(1, 8, 1)
    observed = torch.ones(1, 8, 1, dtype=torch.bool)
    observed[0, [1, 2, 4, 5, 6, 7]] = False
    token_PD = embed(x, observed)[0, 0]
    patch = torch.tensor([x[0, 0, 0], 0.0, 0.0, x[0, 3, 0]]) * 2
    weight, bias = embed.project.weight, embed.project.bias
    torch.testing.assert_close(token_PD[0], weight @ patch + bias + embed.position[0])
    torch.testing.assert_close(token_PD[1], bias + embed.position[1])


def test_parts_of_many_channels_know_their_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsattn.models.patchtst._CACHED_FEATURES", 1)
    network = PatchTST(CHANNELS, CONTEXT, HORIZON, **PATCHES).eval()
    x, observed = torch.randn(4, CONTEXT, CHANNELS), torch.rand(4, CONTEXT, CHANNELS) < 0.5
    whole = network(x, observed_BTC=observed).mean
    with torch.no_grad():
        parts = network(x, observed_BTC=observed).mean
    torch.testing.assert_close(parts, whole)
