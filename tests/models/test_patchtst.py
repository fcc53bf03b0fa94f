import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.perturbing import perturbed, rebuilt
from tests.nn.dropping import dropouts_in_order
from tsattn.models import PatchTST
from tsattn.nn import EncoderLayer, RevIN
from tsattn.nn.norm import TokenBatchNorm
from tsattn.ops import VALUE_ACTIVATIONS

SMALL: dict[str, Any] = {
    "d_model": 8,
    "num_heads": 2,
    "d_ff": 16,
    "num_layers": 2,
    "patch_length": 6,
    "stride": 3,
}


def build(channels: int = 3, context: int = 24, horizon: int = 7, **options: Any) -> PatchTST:
    """Build a small network in float64 that has left its initial weights."""
    network = PatchTST(channels, context, horizon, **(SMALL | options))
    return perturbed(network.double()).eval()


def encoder_layers(network: PatchTST) -> list[EncoderLayer]:
    return [layer for layer in network.layers if isinstance(layer, EncoderLayer)]


def windows(batch: int = 4, context: int = 24, channels: int = 3) -> Tensor:
    return torch.randn(batch, context, channels, dtype=torch.float64).cumsum(1)


@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"revin_affine": False, "stride": 4}])
def test_permuting_channels_permutes_the_forecast(options: dict[str, Any]) -> None:
    network, x = build(**options), windows()
    order = [2, 0, 1]
    torch.testing.assert_close(network(x[..., order]).mean, network(x).mean[..., order])


@pytest.mark.parametrize("individual_head", [False, True])
def test_a_channel_is_forecast_from_itself_alone(individual_head: bool) -> None:
    network, x = build(individual_head=individual_head), windows()
    before = network(x).mean
    x[..., 1] = windows()[..., 1]
    after = network(x).mean
    torch.testing.assert_close(after[..., [0, 2]], before[..., [0, 2]], rtol=0, atol=0)
    assert (after[..., 1] != before[..., 1]).all()


def test_individual_heads_differ_and_a_shared_one_serves_all_channels() -> None:
    same = windows(channels=1).expand(-1, -1, 3)
    shared, individual = build()(same).mean, build(individual_head=True)(same).mean
    torch.testing.assert_close(shared[..., 1:], shared[..., :2])
    assert (individual[..., 1:] != individual[..., :2]).all()


@pytest.mark.parametrize("options", [{}, {"subtract_last": True}, {"revin_affine": True}])
def test_with_revin_another_unit_gives_the_same_forecast_in_that_unit(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RevIN, "eps", 0.0)  # which alone stands in the way of exactness
    network, x = build(**options), windows()
    unit, origin = torch.tensor([0.01, 1.0, 300.0]).double(), torch.tensor([-40.0, 0.0, 9.0])
    expected = network(x).mean * unit + origin
    torch.testing.assert_close(network(x * unit + origin).mean, expected)


def test_without_revin_the_level_matters() -> None:
    network, x = build(revin=False), windows()
    assert not torch.allclose(network(x + 5).mean, network(x).mean + 5)


def test_a_constant_window_is_forecast_as_a_finite_number_near_it() -> None:
    forecast = build()(torch.full((2, 24, 3), 5.0).double()).mean
    assert ((forecast - 5.0).abs() < 0.5).all()


@pytest.mark.parametrize("residual_scores", [False, True])
def test_every_layer_applies_the_activation_once_to_its_projected_values(
    residual_scores: bool,
) -> None:
    seen: list[Tensor] = []
    projected: list[Tensor] = []

    def spy(values: Tensor) -> Tensor:
        seen.append(values.clone())
        return torch.tanh(values)

    network = build(value_activation=spy, residual_scores=residual_scores, num_layers=3)
    for layer in encoder_layers(network):
        layer.attention.value.register_forward_hook(lambda m, i, o: projected.append(o.clone()))
    x = windows()
    spied = network(x).mean
    assert len(seen) == len(projected) == 3
    for values, projection in zip(seen, projected, strict=True):
        heads = projection.unflatten(-1, (2, 4)).transpose(1, 2)
        torch.testing.assert_close(values, heads, rtol=0, atol=0)
    torch.testing.assert_close(rebuilt(network, value_activation="tanh")(x).mean, spied)


def test_the_six_activations_give_six_forecasts() -> None:
    network, x = build(), windows()
    forecasts = [rebuilt(network, value_activation=name)(x).mean for name in VALUE_ACTIVATIONS]
    for i, one in enumerate(forecasts):
        assert all(not torch.allclose(one, other) for other in forecasts[:i])


def test_residual_scores_change_the_second_layer_but_not_the_first() -> None:
    with_scores = build(num_layers=2)
    without = rebuilt(with_scores, residual_scores=False)
    x = windows()
    assert not torch.allclose(with_scores(x).mean, without(x).mean)
    for network in (with_scores, without):
        del network.layers[1]
    torch.testing.assert_close(with_scores(x).mean, without(x).mean)


def test_features_reach_the_head_width_first_then_patches() -> None:
    network, x = build(revin=False), windows()
    tokens = network.embed(x).flatten(0, 1)
    scores = None
    for layer in network.layers:
        tokens, scores, _ = layer(tokens, scores)
    tokens = tokens.unflatten(0, (4, 3))  # [B, C, P, D]
    patches = network.embed.num_patches
    expected = network.head.bias.expand(4, 3, 7).clone()
    for d in range(8):
        for p in range(patches):
            expected += tokens[:, :, p, d, None] * network.head.weight[:, d * patches + p]
    torch.testing.assert_close(network(x).mean, expected.transpose(1, 2))


@pytest.mark.parametrize("individual_head", [False, True])
@pytest.mark.parametrize("features", [1, 300, 1 << 20])
def test_evaluation_in_parts_gives_the_forecast_of_the_whole(
    features: int, individual_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsattn.models.patchtst._CACHED_FEATURES", features)
    network = build(channels=5, individual_head=individual_head)
    x = windows(batch=3, channels=5)
    whole = network(x).mean  # with gradients nothing is taken apart
    calls: list[int] = []
    network.embed.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        torch.testing.assert_close(network(x).mean, whole, rtol=1e-12, atol=1e-12)
    parts = 1 if individual_head else {1: 15, 300: 4, 1 << 20: 1}[features]
    assert len(calls) == parts


@pytest.mark.parametrize("kind", ["training", "no statistics", "synchronised"])
def test_batch_norms_over_the_batch_in_evaluation_see_all_of_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsattn.models.patchtst._CACHED_FEATURES", 1)
    network = build(channels=5, dropout=0.0)
    for layer in encoder_layers(network):
        norm = layer.attention_norm
        assert isinstance(norm, TokenBatchNorm)
        if kind == "no statistics":
            layer.attention_norm = TokenBatchNorm(8, track_running_stats=False).double().eval()
        elif kind == "synchronised":
            layer.attention_norm = nn.SyncBatchNorm(8).double()
        else:
            norm.momentum = 0.0  # the second forecast is made with the same statistics
            norm.train()
    x = windows(batch=3, channels=5)
    whole = network(x).mean
    with torch.inference_mode():
        torch.testing.assert_close(network(x).mean, whole, rtol=1e-12, atol=1e-12)


def test_dropout_sits_where_the_published_recipe_has_it() -> None:
    network = PatchTST(3, 24, 7, **SMALL, dropout=0.3, head_dropout=0.1)
    passed = dropouts_in_order(network, windows().float())
    layer = ["attention_dropout", "dropout", "feedforward.dropout", "dropout"]
    assert passed == [
        ("embed.dropout", 0.3),
        *[(f"layers.{i}.{name}", 0.3) for i in range(2) for name in layer],
        ("head.dropout", 0.1),
    ]
    assert all(layer.attention.weight_dropout == 0.0 for layer in encoder_layers(network))


def test_calendar_features_are_accepted_and_ignored() -> None:
    network, x = build(), windows()
    marks, future = torch.rand(4, 24, 4).double(), torch.rand(4, 7, 4).double()
    torch.testing.assert_close(network(x, marks, future).mean, network(x).mean, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("context", "patch_length", "stride"), [(336, 16, 8), (10, 10, 5), (1, 1, 1), (2, 2, 1)]
)
def test_the_usual_patch_is_sixteen_steps_or_the_whole_of_a_shorter_window(
    context: int, patch_length: int, stride: int
) -> None:
    network = PatchTST(1, context, 1, d_model=4, num_heads=2, d_ff=4, num_layers=1)
    assert (network.embed.patch_length, network.embed.stride) == (patch_length, stride)
    assert network.init_args["patch_length"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, "d_model=10 and num_heads=4"),
        ({"patch_length": 25}, "patch_length=25, stride=3, context=24"),
        ({"patch_length": 0}, "patch_length=0"),
        ({"stride": 0}, "stride=0"),
        ({"value_activation": "tanhh"}, "unknown value_activation 'tanhh'"),
        ({"attention_impl": "flash"}, "unknown impl 'flash'"),
        ({"dropout": 1.5}, "1.5"),
        ({"num_layers": -1}, "num_layers.*-1"),
        ({"d_ff": 0}, "d_ff.*0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_numbers(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PatchTST(3, 24, 7, **(SMALL | options))


@pytest.mark.parametrize("activation", [nn.PReLU(init=0.2), nn.Sequential(nn.Tanh(), nn.PReLU())])
def test_a_module_with_parameters_is_registered_and_trained(activation: nn.Module) -> None:
    network = PatchTST(3, 24, 7, **SMALL, value_activation=activation)
    own = {n: p for n, p in network.named_parameters() if "value_activation" in n}
    assert len(own) == 2  # one for each layer
    optimizer = torch.optim.SGD(own.values(), lr=0.1)
    network(windows().float()).mean.square().mean().backward()
    before = {name: p.item() for name, p in own.items()}
    optimizer.step()
    assert all(p.item() != before[name] for name, p in own.items())
    assert own.keys() <= network.state_dict().keys()


@pytest.mark.parametrize("activation", [torch.sin, lambda v: v * 2, nn.Softsign()])
def test_any_elementwise_callable_serves_as_activation(
    activation: Callable[[Tensor], Tensor],
) -> None:
    assert build(value_activation=activation)(windows()).mean.isfinite().all()


def test_it_learns_a_sine() -> None:
    steps = torch.arange(400.0)
    series = torch.sin(steps * 2 * math.pi / 12)[:, None]
    rows = torch.arange(0, 360)[:, None] + torch.arange(31)
    x, y = series[rows][:, :24], series[rows][:, 24:]
    network = PatchTST(1, 24, 7, **SMALL, value_activation="tanh", dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x).mean - y).square().mean()
        loss.backward()
        optimizer.step()
    assert (network.eval()(x).mean - y).square().mean() < 0.01
