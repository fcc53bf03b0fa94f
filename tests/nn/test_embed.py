import math

import pytest
import torch
from torch import nn

from tsattn.nn import CalendarEmbedding, PatchEmbedding
from tsattn.nn.embed import sinusoidal_positions


def cutter(
    context: int, patch_length: int, stride: int, end_padding: bool = True
) -> PatchEmbedding:
    """Build an embedding whose tokens are the patches themselves."""
    embed = PatchEmbedding(context, patch_length, stride, patch_length, end_padding=end_padding)
    nn.init.eye_(embed.project.weight)
    nn.init.zeros_(embed.project.bias)
    nn.init.zeros_(embed.position)
    return embed


@pytest.mark.parametrize(
    ("context", "patch", "stride", "end_padding", "starts"),
    [
        (8, 4, 2, False, [0, 2, 4]),
        (8, 4, 2, True, [0, 2, 4, 6]),
        (9, 4, 2, False, [0, 2, 4]),  # one step is left over
        (9, 4, 2, True, [0, 2, 4, 6]),
        (7, 3, 5, True, [0, 5]),  # patches with gaps between them
        (6, 6, 3, False, [0]),  # as long as the context
        (6, 6, 3, True, [0, 3]),
        (6, 1, 1, False, [0, 1, 2, 3, 4, 5]),
        (1, 1, 1, True, [0, 1]),
    ],
)
def test_patches_start_every_stride_and_the_last_value_fills_the_end(
    context: int, patch: int, stride: int, end_padding: bool, starts: list[int]
) -> None:
    embed = cutter(context, patch, stride, end_padding)
    x = torch.randn(2, context, 3)
    tokens = embed(x)
    assert tokens.shape == (2, 3, len(starts), patch)
    assert embed.num_patches == len(starts)
    for number, start in enumerate(starts):
        for step in range(patch):
            expected = x[:, min(start + step, context - 1)]
            torch.testing.assert_close(tokens[:, :, number, step], expected, rtol=0, atol=0)


def test_a_token_is_the_projected_patch_plus_its_position() -> None:
    embed = PatchEmbedding(8, 4, 4, 5)
    x = torch.randn(2, 8, 3)
    patch = x[:, 4:8].transpose(1, 2)
    expected = patch @ embed.project.weight.T + embed.project.bias + embed.position[1]
    torch.testing.assert_close(embed(x)[:, :, 1], expected)


def test_positions_start_within_a_fiftieth_around_zero() -> None:
    position = PatchEmbedding(336, 16, 8, 128).position
    assert position.shape == (42, 128)
    assert 0.0199 < position.abs().max() <= 0.02
    assert position.mean().abs() < 0.001


@pytest.mark.parametrize(
    ("context", "patch", "stride"), [(15, 16, 8), (16, 0, 8), (16, 16, 0), (16, -1, 1)]
)
def test_a_patch_that_does_not_fit_is_refused_with_the_numbers(
    context: int, patch: int, stride: int
) -> None:
    with pytest.raises(
        ValueError, match=f"patch_length={patch}, stride={stride}, context={context}"
    ):
        PatchEmbedding(context, patch, stride, 8)


@pytest.mark.parametrize("d_model", [1, 2, 7, 8])
def test_positions_are_sines_and_cosines_also_of_an_odd_width(d_model: int) -> None:
    table = sinusoidal_positions(50, d_model)
    for position in (0, 1, 49):
        for feature in range(d_model):
            angle = position / 10000 ** (2 * (feature // 2) / d_model)
            expected = math.cos(angle) if feature % 2 else math.sin(angle)
            assert table[position, feature].item() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_calendar_token_adds_neighbours_position_and_calendar(length: int) -> None:
    embed = CalendarEmbedding(3, 5, calendar_features=2).double()
    x, marks = torch.randn(4, length, 3).double(), torch.randn(4, length, 2).double()
    tokens = embed(x, marks)
    assert embed.calendar is not None
    for step in range(length):
        expected = marks[:, step] @ embed.calendar.weight.T
        expected = expected + sinusoidal_positions(length, 5)[step]
        for offset in (-1, 0, 1):  # the window is a ring
            expected = (
                expected + x[:, (step + offset) % length] @ embed.value.weight[..., offset + 1].T
            )
        torch.testing.assert_close(tokens[:, step], expected)


def test_the_calendar_can_be_left_out() -> None:
    embed = CalendarEmbedding(3, 5, calendar_features=0)
    assert embed(torch.randn(2, 4, 3), None).shape == (2, 4, 5)
    assert [name for name, _ in embed.named_parameters()] == ["value.weight"]


def test_neither_the_values_nor_the_calendar_have_a_bias() -> None:
    embed = CalendarEmbedding(3, 5, calendar_features=2)
    names = [name for name, _ in embed.named_parameters()]
    assert names == ["value.weight", "calendar.weight"]


def test_value_weights_start_kaiming_normal_for_a_leaky_relu() -> None:
    weight = CalendarEmbedding(100, 512).value.weight
    gain = math.sqrt(2 / (1 + 0.01**2))
    assert weight.std().item() == pytest.approx(gain / math.sqrt(100 * 3), rel=0.02)
    assert weight.abs().max() > 3.5 * weight.std()  # normal, not uniform
