"""What holds for every network of the table."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from tsattn.models import NETWORKS, Forecast, ForecastNetwork

CONTEXT, HORIZON, CHANNELS, MARKS = 21, 5, 3, 4
PATCHTST: dict[str, Any] = {
    "d_model": 8,
    "num_heads": 2,
    "d_ff": 16,
    "num_layers": 2,
    "patch_length": 4,
}
TRANSFORMER: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 16}


@dataclass(frozen=True)
class Built:
    """A network by name, with arguments that make it small."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    context: int = CONTEXT
    horizon: int = HORIZON
    channels: int = CHANNELS

    def __str__(self) -> str:
        sizes = f"-{self.context}-{self.horizon}-{self.channels}"
        shown = {k: v for k, v in self.options.items() if k not in PATCHTST | TRANSFORMER}
        return (
            self.name
            + (sizes if sizes != f"-{CONTEXT}-{HORIZON}-{CHANNELS}" else "")
            + "".join(f"-{k}={getattr(v, '__name__', v)}" for k, v in shown.items())
        )

    def build(self) -> ForecastNetwork:
        return NETWORKS[self.name](self.channels, self.context, self.horizon, **self.options)

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [
            torch.randn(batch, self.context, self.channels, dtype=dtype) + 2.0,
            torch.rand(batch, self.context, MARKS, dtype=dtype) - 0.5,
            torch.rand(batch, self.horizon, MARKS, dtype=dtype) - 0.5,
        ]


def patchtst(**options: Any) -> Built:
    sizes = {k: options.pop(k) for k in ("context", "horizon", "channels") if k in options}
    return Built("PatchTST", PATCHTST | options, **sizes)


def transformer(**options: Any) -> Built:
    sizes = {k: options.pop(k) for k in ("context", "horizon", "channels") if k in options}
    return Built("EncoderDecoderTransformer", TRANSFORMER | options, **sizes)


EVERY = [
    patchtst(),
    patchtst(value_activation="tanh", norm="layer", prenorm=True, residual_scores=False),
    patchtst(value_activation=torch.sin, revin_affine=True, subtract_last=True),
    patchtst(value_activation=nn.PReLU(init=0.1), individual_head=True, end_padding=False),
    patchtst(revin=False, head_dropout=0.1, num_layers=1),
    patchtst(channels=1, horizon=1),
    patchtst(context=16, patch_length=16),
    patchtst(context=4, patch_length=4, end_padding=False),
    patchtst(context=1, horizon=1, channels=1, patch_length=1),
    patchtst(patch_length=5, stride=7),
    transformer(),
    transformer(value_activation="sigmoid", label=0, decoder_layers=2),
    transformer(value_activation=nn.PReLU(init=0.1), label=CONTEXT),
    transformer(value_activation=torch.sin, calendar_features=0, dropout=0.3),
    transformer(channels=1, horizon=1, context=1),
    transformer(d_model=9, num_heads=3),
    Built("DLinear"),
    Built("DLinear", {"individual": True, "kernel_size": 3}),
    Built("DLinear", {"kernel_size": 1}, context=1, horizon=1, channels=1),
    Built("LastValue"),
    Built("LastValue", context=1, horizon=1, channels=1),
    Built("SeasonalNaive", {"season": 3}),
    Built("SeasonalNaive", {"season": CONTEXT}),
    Built("WindowMean"),
]


def test_every_network_of_the_table_is_tested_here() -> None:
    assert {built.name for built in EVERY} == NETWORKS.keys()
    assert all(name == network.__name__ for name, network in NETWORKS.items())


@pytest.mark.parametrize("built", EVERY, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_forecast_has_the_shape_and_dtype_of_its_window(
    built: Built, dtype: torch.dtype, batch: int
) -> None:
    network = built.build().to(dtype).eval()
    forecast = network(*built.inputs(batch, dtype))
    assert isinstance(forecast, Forecast)
    assert forecast.mean.shape == (batch, built.horizon, built.channels)
    assert forecast.mean.dtype == dtype
    assert forecast.mean.isfinite().all()
    assert forecast.quantiles is None
    assert forecast.losses == {}


@pytest.mark.parametrize("built", EVERY, ids=str)
@pytest.mark.parametrize("gradients", [False, True])
def test_a_batch_of_no_windows_has_no_forecasts(built: Built, gradients: bool) -> None:
    network = built.build().eval()
    with torch.set_grad_enabled(gradients):
        mean = network(*built.inputs(0)).mean
    assert mean.shape == (0, built.horizon, built.channels)
    if mean.requires_grad:
        mean.sum().backward()


LEARNING = [built for built in EVERY if list(built.build().parameters())]


@pytest.mark.parametrize("built", LEARNING, ids=str)
def test_training_reaches_every_parameter_with_finite_gradients(built: Built) -> None:
    network = built.build().train()
    network(*built.inputs()).mean.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if built.context == CONTEXT and built.options.get("label") != 0:  # else some are truly zero
        dead = [n for n, p in network.named_parameters() if not (p.grad != 0).any()]
        assert [name for name in dead if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("built", LEARNING, ids=str)
def test_a_network_in_half_precision_forecasts_and_trains(built: Built, dtype: torch.dtype) -> None:
    network, inputs = built.build().eval(), built.inputs()
    expected = network(*inputs).mean
    network.to(dtype)
    narrow = [given.to(dtype) for given in inputs]
    torch.testing.assert_close(network(*narrow).mean.float(), expected, rtol=0.1, atol=0.1)
    with torch.no_grad():
        torch.testing.assert_close(network(*narrow).mean.float(), expected, rtol=0.1, atol=0.1)
    network.train()(*narrow).mean.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype


def test_a_window_in_half_precision_suits_a_network_in_full() -> None:
    built = patchtst()
    network, (x, *_) = built.build().eval(), built.inputs()
    found = network(x.bfloat16()).mean
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, network(x).mean, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_the_noted_arguments_build_the_network_again(built: Built) -> None:
    network = trained_a_little(built)
    again = type(network)(**network.init_args)
    assert again.init_args == network.init_args
    assert again.state_dict().keys() == network.state_dict().keys()
    shared = {p.data_ptr() for p in network.parameters()} & {
        p.data_ptr() for p in again.parameters()
    }
    assert not shared
    again.load_state_dict(network.state_dict())
    assert_same_forecast(network, again.eval(), built)


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_weights_survive_a_file_without_pickle(built: Built) -> None:
    network = trained_a_little(built)
    again = built.build()
    again.load_state_dict(load_safetensors(save_safetensors(network.state_dict())))
    assert_same_forecast(network, again.eval(), built)


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_a_deep_copy_forecasts_the_same_and_trains_alone(built: Built) -> None:
    network = trained_a_little(built)
    twin = copy.deepcopy(network)
    assert_same_forecast(network, twin, built)
    before = {name: p.clone() for name, p in network.state_dict().items()}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_evaluation_is_repeatable_and_leaves_its_inputs_alone(built: Built) -> None:
    network, inputs = trained_a_little(built), built.inputs()
    before = [t.clone() for t in inputs]
    state = {name: t.clone() for name, t in network.state_dict().items()}
    first, second = network(*inputs).mean, network(*inputs).mean
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for given, kept in zip(inputs, before, strict=True):
        torch.testing.assert_close(given, kept, rtol=0, atol=0)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_a_window_is_forecast_alike_alone_and_in_a_batch(built: Built) -> None:
    network, inputs = trained_a_little(built).double(), built.inputs(dtype=torch.float64)
    together = network(*inputs).mean
    alone = network(*(t[2:3] for t in inputs)).mean
    torch.testing.assert_close(alone, together[2:3])


@pytest.mark.parametrize("built", EVERY, ids=str)
def test_a_strided_window_is_forecast_like_a_contiguous_one(built: Built) -> None:
    network, inputs = trained_a_little(built), built.inputs()
    strided = [t.transpose(0, 2).contiguous().transpose(0, 2) for t in inputs]
    assert built.channels == 1 or not strided[0].is_contiguous()
    torch.testing.assert_close(network(*strided).mean, network(*inputs).mean)


@pytest.mark.parametrize("built", LEARNING, ids=str)
def test_mixed_precision_trains_with_finite_float32_gradients(built: Built) -> None:
    network = built.build().train()
    with torch.autocast("cpu", torch.bfloat16):
        forecast = network(*built.inputs()).mean
    forecast.float().square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.unchecked
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(2, 20, 3), (2, 21, 4), (21, 3), (2, 3, 21), (1, 2, 21, 3)])
def test_a_window_of_another_shape_is_refused_with_both_shapes(
    name: str, shape: tuple[int, ...]
) -> None:
    network = next(built for built in EVERY if built.name == name).build()
    expected = rf"{name} expects windows of \[batch, context 21, channels 3\]"
    with pytest.raises(ValueError, match=expected) as error:
        network(torch.randn(shape), torch.randn(2, 21, 4), torch.randn(2, 5, 4))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", ["channels", "context", "horizon"])
def test_sizes_below_one_are_refused_by_name(name: str, size: str) -> None:
    sizes = {"channels": 3, "context": 30, "horizon": 5} | {size: 0}
    with pytest.raises(ValueError, match=f"{size} must be at least 1, got 0"):
        NETWORKS[name](**sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_argument_but_the_sizes_is_needed(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](channels=2, context=48, horizon=6)
    assert network.init_args["channels"] == 2
    assert (network.channels, network.context, network.horizon) == (2, 48, 6)


def trained_a_little(built: Built) -> ForecastNetwork:
    """Return a network whose weights and running statistics are not the initial ones."""
    network = built.build().train()
    with torch.no_grad():
        for _ in range(2):
            network(*built.inputs())
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def assert_same_forecast(one: ForecastNetwork, other: ForecastNetwork, built: Built) -> None:
    inputs = built.inputs()
    torch.testing.assert_close(other(*inputs).mean, one(*inputs).mean, rtol=0, atol=0)
