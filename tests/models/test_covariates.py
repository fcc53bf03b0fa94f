"""What networks make of covariates: nothing where there are none, and never the wrong steps."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.models.perturbing import perturbed
from tsattn.models import DLinear, EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.tensors import Covariates

CONTEXT, HORIZON, CHANNELS = 21, 5, 3
SIZES: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 12}
SMALL = SIZES | {"num_layers": 2, "patch_length": 6, "stride": 3, "dropout": 0.1}


def patchtst(known: int = 0, past: int = 0, static: int = 0, **options: Any) -> PatchTST:
    counts = {"known_covariates": known, "past_covariates": past, "static_covariates": static}
    given: Any = SMALL | counts | options
    return PatchTST(CHANNELS, CONTEXT, HORIZON, **given)


def transformer(known: int = 0, past: int = 0, static: int = 0) -> EncoderDecoderTransformer:
    return EncoderDecoderTransformer(
        CHANNELS, CONTEXT, HORIZON, **SIZES, calendar_features=0,
        known_covariates=known, past_covariates=past, static_covariates=static,
    )  # fmt: skip


BOTH = pytest.mark.parametrize("build", [patchtst, transformer], ids=lambda one: one.__name__)
KINDS = pytest.mark.parametrize(
    "sizes", [(2, 3, 2), (1, 0, 0), (0, 2, 0), (0, 0, 1), (2, 0, 1)], ids=str
)


def inputs(sizes: tuple[int, int, int], batch: int = 4) -> tuple[Tensor, Covariates]:
    known, past, static = sizes
    return torch.randn(batch, CONTEXT, CHANNELS), Covariates(
        torch.randn(batch, CONTEXT + HORIZON, known),
        torch.randn(batch, CONTEXT, past),
        torch.randn(batch, static),
    )


@BOTH
@KINDS
def test_covariates_of_every_kind_matter_and_reach_every_parameter(
    build: Any, sizes: tuple[int, int, int]
) -> None:
    network: ForecastNetwork = build(*sizes)
    window, covariates = inputs(sizes)
    forecast = network(window, covariates=covariates).mean
    assert forecast.shape == (4, HORIZON, CHANNELS)
    forecast.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any() or name.endswith("key.bias"), name
    network.eval()
    before = network(window, covariates=covariates).mean
    for place, values in enumerate(covariates):
        if values.shape[-1]:
            changed = Covariates(*(-one if i == place else one for i, one in enumerate(covariates)))
            assert not torch.allclose(network(window, covariates=changed).mean, before)


@BOTH
def test_without_covariates_nothing_is_there(build: Any) -> None:
    torch.manual_seed(3)
    network: ForecastNetwork = build()
    torch.manual_seed(3)
    told: ForecastNetwork = build(2, 1, 1)
    extra = told.state_dict().keys() - network.state_dict().keys()
    assert network.state_dict().keys() == told.state_dict().keys() - extra
    if isinstance(network, PatchTST):
        assert network.covariates is None
        assert all(name.startswith("covariates.") for name in extra)
        for name, value in network.state_dict().items():  # those of the same seed are the same
            torch.testing.assert_close(told.state_dict()[name], value, rtol=0, atol=0)
    none = Covariates(*(torch.zeros(4, *steps, 0) for steps in ((26,), (21,), ())))
    window = torch.randn(4, CONTEXT, CHANNELS)
    network.eval()
    torch.testing.assert_close(
        network(window, covariates=none).mean, network(window).mean, rtol=0, atol=0
    )


@pytest.mark.parametrize("individual", [False, True])
def test_evaluation_in_parts_equals_evaluation_at_once(individual: bool) -> None:
    network = perturbed(patchtst(2, 1, 2, individual_head=individual)).double().eval()
    window, covariates = inputs((2, 1, 2))
    window, covariates = window.double(), Covariates(*(one.double() for one in covariates))
    at_once = network(window, covariates=covariates).mean
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsattn.models.patchtst._CACHED_FEATURES", 5 * network.head.features)
        in_parts = network(window, covariates=covariates).mean
    torch.testing.assert_close(in_parts, at_once)


def test_channels_still_do_not_see_each_other() -> None:
    network = perturbed(patchtst(1, 1, 1)).eval()
    window, covariates = inputs((1, 1, 1))
    other = window.clone()
    other[..., 0] += torch.randn(4, CONTEXT)
    first = network(window, covariates=covariates).mean
    second = network(other, covariates=covariates).mean
    torch.testing.assert_close(first[..., 1:], second[..., 1:])
    assert not torch.allclose(first[..., 0], second[..., 0])


def test_the_answer_to_what_is_known_ahead_is_the_stated_formula() -> None:
    """Step by step and in plain torch: what is added to the head's output."""
    network = perturbed(patchtst(2, 1, 1, revin=False, num_layers=1)).double().eval()
    window, covariates = inputs((2, 1, 1))
    window, (known, past, static) = window.double(), (one.double() for one in covariates)
    parts = network.covariates
    assert parts is not None
    assert parts.patches is not None
    assert parts.static is not None
    assert parts.steps is not None
    assert parts.answer is not None
    seen: list[Tensor] = []

    def see(head: Any, given: Any, made: Any) -> None:
        seen.extend((given[0], made))

    with network.head.register_forward_hook(see):
        forecast = network(window, covariates=Covariates(known, past, static)).mean
    tokens_BCPD, plain_BCH = seen
    weights = tokens_BCPD.mean(dim=2) @ parts.answer.weight.T + parts.answer.bias
    steps = parts.steps
    for step in range(HORIZON):
        rows = [min(CONTEXT + step + offset, CONTEXT + HORIZON - 1) for offset in range(-5, 2)]
        around = known[:, rows].transpose(1, 2).flatten(1)  # feature by feature, then in time
        hidden = F.gelu(around @ steps.expand.weight.T + steps.expand.bias)
        features = around @ steps.skip.weight.T + hidden @ steps.contract.weight.T
        features = features + steps.contract.bias
        answer = (weights * features.unsqueeze(1)).sum(-1) / math.sqrt(8)
        torch.testing.assert_close(forecast[:, step], plain_BCH[..., step] + answer)
    # and into the tokens go the patches of what is beside the window
    beside = torch.cat([known[:, :CONTEXT], past], dim=-1)
    padded = torch.cat([beside, beside[:, -1:].expand(-1, 3, -1)], dim=1)
    told = parts(Covariates(known, past, static), network.embed).tokens_BPD
    for patch in range(network.embed.num_patches):
        cut = padded[:, 3 * patch : 3 * patch + 6].transpose(1, 2).flatten(1)
        expected = cut @ parts.patches.weight.T + static @ parts.static.weight.T
        torch.testing.assert_close(told[:, patch], expected)


@BOTH
@settings(max_examples=15)
@given(step=st.integers(0, HORIZON - 1))
def test_values_of_a_covariate_known_ahead_reach_the_step_they_belong_to(
    build: Any, step: int
) -> None:
    torch.manual_seed(step)
    network: ForecastNetwork = build(1).eval()
    window, covariates = inputs((1, 0, 0))
    other = covariates.known_BLG.clone()
    other[:, CONTEXT + step] += 1
    before = network(window, covariates=covariates).mean
    after = network(window, covariates=covariates._replace(known_BLG=other)).mean
    assert not torch.allclose(before[:, step], after[:, step])
    if isinstance(network, PatchTST) and step > 1:  # what comes is felt one step before
        torch.testing.assert_close(before[:, : step - 1], after[:, : step - 1])


@BOTH
def test_covariates_of_another_shape_and_missing_ones_are_refused(build: Any) -> None:
    network: ForecastNetwork = build(2, 1, 1)
    window, covariates = inputs((2, 1, 1))
    with pytest.raises(ValueError, match=r"built for covariates.*2 known ahead, 1 past, 1 static"):
        network(window)
    for wrong in (
        covariates._replace(known_BLG=covariates.known_BLG[:, 1:]),
        covariates._replace(past_BTO=covariates.past_BTO[..., :0]),
        covariates._replace(static_BA=covariates.static_BA[:2]),
    ):
        with pytest.raises(ValueError, match=r"expects covariates.*\[4, 26, 2\].*got \[\["):
            network(window, covariates=wrong)
    with pytest.raises(ValueError, match=r"expects covariates"):
        build()(window, covariates=covariates)
    with pytest.raises(ValueError, match="past_covariates must be at least 0, got -1"):
        build(0, -1)


def test_networks_without_a_place_for_covariates_ignore_none() -> None:
    network = DLinear(CHANNELS, CONTEXT, HORIZON, kernel_size=3)
    assert network(torch.randn(2, CONTEXT, CHANNELS), covariates=None).mean.shape[0] == 2


@BOTH
def test_mixed_precision_trains(build: Any) -> None:
    network: ForecastNetwork = build(2, 1, 1).train()
    window, covariates = inputs((2, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        forecast = network(window, covariates=covariates).mean
    forecast.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
