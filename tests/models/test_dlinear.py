import pytest
import torch
from torch import nn

from tsattn.models import DLinear


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 25, 41])
def test_trend_and_rest_are_mapped_linearly_channel_by_channel(
    kernel_size: int, individual: bool
) -> None:
    network = DLinear(3, 20, 5, kernel_size=kernel_size, individual=individual).double()
    x = torch.randn(2, 20, 3).double()
    half = kernel_size // 2
    trend = torch.empty_like(x)
    for step in range(20):
        around = [min(max(step + offset, 0), 19) for offset in range(-half, half + 1)]
        trend[:, step] = x[:, around].mean(1)
    forecast = network(x).mean
    for channel in range(3):
        trend_map, season_map = (
            (head.weight[channel], head.bias[channel]) if individual else (head.weight, head.bias)
            for head in (network.trend, network.season)
        )
        season = x[..., channel] - trend[..., channel]
        expected = trend[..., channel] @ trend_map[0].T + trend_map[1]
        expected = expected + season @ season_map[0].T + season_map[1]
        torch.testing.assert_close(forecast[..., channel], expected)


def test_with_equal_maps_the_decomposition_cancels() -> None:
    network, x = DLinear(3, 20, 5), torch.randn(2, 20, 3)
    network.season.load_state_dict(network.trend.state_dict())
    nn.init.zeros_(network.season.bias)
    expected = nn.functional.linear(x.transpose(1, 2), network.trend.weight, network.trend.bias)
    torch.testing.assert_close(network(x).mean, expected.transpose(1, 2))


@pytest.mark.parametrize("kernel_size", [0, 2, -1])
def test_a_kernel_without_a_centre_is_refused(kernel_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"kernel_size must be odd and positive, got {kernel_size}"
    ):
        DLinear(3, 20, 5, kernel_size=kernel_size)
