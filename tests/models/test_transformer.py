from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.perturbing import perturbed, rebuilt
from tests.nn.dropping import dropouts_in_order
from tsattn.models import EncoderDecoderTransformer
from tsattn.nn import MultiHeadActiveAttention

SMALL: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 16}
CONTEXT, HORIZON, CHANNELS, MARKS = 12, 6, 3, 4


def build(**options: Any) -> EncoderDecoderTransformer:
    """Build a small network in float64 that has left its initial weights."""
    network = EncoderDecoderTransformer(CHANNELS, CONTEXT, HORIZON, **(SMALL | options))
    return perturbed(network.double()).eval()


@pytest.fixture
def inputs() -> list[Tensor]:
    shapes = [(2, CONTEXT, CHANNELS), (2, CONTEXT, MARKS), (2, HORIZON, MARKS)]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def attentions(network: EncoderDecoderTransformer) -> dict[str, MultiHeadActiveAttention]:
    return {n: m for n, m in network.named_modules() if isinstance(m, MultiHeadActiveAttention)}


def test_a_step_of_the_forecast_ignores_the_calendar_of_later_steps(inputs: list[Tensor]) -> None:
    network = build(decoder_layers=2)
    before = network(*inputs).mean
    inputs[2][:, 4:] += 1.0
    after = network(*inputs).mean
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
    assert (after[:, 4:] != before[:, 4:]).all()


def test_a_step_of_the_forecast_sees_the_calendar_of_earlier_steps(inputs: list[Tensor]) -> None:
    network = build()
    before = network(*inputs).mean
    inputs[2][:, 0] += 1.0
    assert (network(*inputs).mean != before).all()


@pytest.mark.parametrize("which", [0, 1])
def test_the_whole_window_and_its_calendar_reach_every_step(
    which: int, inputs: list[Tensor]
) -> None:
    inputs[which].requires_grad_()
    for step in range(HORIZON):
        forecast = build(label=4)(*inputs).mean[:, step].sum()
        (gradient,) = torch.autograd.grad(forecast, inputs[which])
        assert (gradient != 0).any(dim=-1).all()


def test_the_decoder_starts_from_the_label_and_is_otherwise_given_zeros(
    inputs: list[Tensor],
) -> None:
    network, given = build(label=5), []
    network.decoder_embed.register_forward_pre_hook(lambda m, args: given.extend(args))
    network(*inputs)
    values, marks = given
    x, past, future = inputs
    zeros = torch.zeros(2, HORIZON, CHANNELS).double()
    torch.testing.assert_close(values, torch.cat([x[:, -5:], zeros], 1), rtol=0, atol=0)
    torch.testing.assert_close(marks, torch.cat([past[:, -5:], future], 1), rtol=0, atol=0)


@pytest.mark.parametrize(("label", "steps"), [(None, 6), (0, 0), (12, 12)])
def test_the_usual_label_is_half_the_window(label: int | None, steps: int) -> None:
    assert build(label=label).label == steps


def test_every_attention_applies_the_activation_once_to_its_projected_values(
    inputs: list[Tensor],
) -> None:
    seen: list[Tensor] = []
    projected: list[Tensor] = []

    def spy(values: Tensor) -> Tensor:
        seen.append(values.clone())
        return torch.sigmoid(values)

    network = build(value_activation=spy, encoder_layers=2, decoder_layers=3)
    for attention in attentions(network).values():
        attention.value.register_forward_hook(lambda m, i, o: projected.append(o.clone()))
    spied = network(*inputs).mean
    assert len(seen) == len(projected) == 2 + 2 * 3
    for values, projection in zip(seen, projected, strict=True):
        heads = projection.unflatten(-1, (2, 4)).transpose(1, 2)
        torch.testing.assert_close(values, heads, rtol=0, atol=0)
    named = rebuilt(network, value_activation="sigmoid")
    torch.testing.assert_close(named(*inputs).mean, spied)


@pytest.mark.parametrize("kind", ["encoder.1.attention", "self_attention", "cross_attention"])
def test_each_of_the_three_attentions_feels_the_activation(kind: str, inputs: list[Tensor]) -> None:
    network = build()
    before = network(*inputs).mean
    (attention,) = (a for name, a in attentions(network).items() if name.endswith(kind))
    attention.value_activation = "tanh"
    assert not torch.allclose(network(*inputs).mean, before)


def test_with_all_values_silenced_the_encoder_cannot_be_heard(inputs: list[Tensor]) -> None:
    network = build(value_activation=torch.zeros_like, label=4)
    before = network(*inputs).mean
    inputs[0][:, : CONTEXT - 4] += 1.0  # beyond the label only the encoder sees it
    torch.testing.assert_close(network(*inputs).mean, before, rtol=0, atol=0)


def test_dropout_sits_where_the_common_recipe_has_it(inputs: list[Tensor]) -> None:
    network = EncoderDecoderTransformer(CHANNELS, CONTEXT, HORIZON, **SMALL, dropout=0.05)
    passed = [each for each in dropouts_in_order(network, *(t.float() for t in inputs)) if each[1]]
    encoder = ["dropout", "feedforward.dropout", "dropout"]
    decoder = ["dropout", "dropout", "feedforward.dropout", "dropout"]
    names = [
        "encoder_embed.dropout",
        *[f"encoder.{i}.{name}" for i in range(2) for name in encoder],
        "decoder_embed.dropout",
        *[f"decoder.0.{name}" for name in decoder],
    ]
    assert passed == [(name, 0.05) for name in names]
    assert [a.weight_dropout for a in attentions(network).values()] == [0.05] * 4


def test_channels_are_mixed(inputs: list[Tensor]) -> None:
    network = build()
    before = network(*inputs).mean
    inputs[0][..., 0] += torch.randn(2, CONTEXT).double()
    assert (network(*inputs).mean[..., 1:] != before[..., 1:]).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, m, f: (x,), r"expects marks of \[batch 2, steps 12, .* 4\], got None"),
        (lambda x, m, f: (x, m), r"expects future_marks of \[batch 2, steps 6, .* 4\], got None"),
        (lambda x, m, f: (x, m[:, 1:], f), r"expects marks .*got \[2, 11, 4\]"),
        (lambda x, m, f: (x, m, f[:, :5]), r"expects future_marks .*got \[2, 5, 4\]"),
        (lambda x, m, f: (x, m[..., 1:], f), r"expects marks .*got \[2, 12, 3\]"),
        (lambda x, m, f: (x, m, f[:1]), r"expects future_marks .*got \[1, 6, 4\]"),
    ],
)
def test_a_missing_or_unfitting_calendar_is_refused_with_the_shapes(
    spoil: Callable[..., tuple[Tensor, ...]], message: str, inputs: list[Tensor]
) -> None:
    with pytest.raises(ValueError, match=message):
        build()(*spoil(*inputs))


def test_without_calendar_features_none_are_needed(inputs: list[Tensor]) -> None:
    network = build(calendar_features=0)
    forecast = network(inputs[0]).mean
    torch.testing.assert_close(network(*inputs).mean, forecast, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, "d_model=10 and num_heads=4"),
        ({"label": 13}, r"0\.\.12, got 13"),
        ({"label": -1}, r"0\.\.12, got -1"),
        ({"value_activation": "Tanh"}, "unknown value_activation 'Tanh'"),
        ({"attention_impl": "flash"}, "unknown impl 'flash'"),
        ({"dropout": -0.1}, "-0.1"),
        ({"dropout": 1.0}, "dropout.*1.0"),
        ({"calendar_features": -1}, "calendar_features.*-1"),
        ({"encoder_layers": -1}, "encoder_layers.*-1"),
        ({"decoder_layers": 0}, "decoder_layers.*0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_numbers(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderDecoderTransformer(CHANNELS, CONTEXT, HORIZON, **(SMALL | options))


def test_a_module_with_parameters_is_trained_in_every_attention(inputs: list[Tensor]) -> None:
    network = build(value_activation=nn.PReLU(init=0.2))
    own = {n: p for n, p in network.named_parameters() if "value_activation" in n}
    assert len(own) == 4
    network(*inputs).mean.square().mean().backward()
    assert all(p.grad is not None and p.grad != 0 for p in own.values())
