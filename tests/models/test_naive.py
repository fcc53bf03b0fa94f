import pytest
import torch
from torch import Tensor

from tsattn.models import LastValue, SeasonalNaive, WindowMean


@pytest.fixture
def window() -> Tensor:
    """One window of two channels: 1..6, and its tenfold."""
    steps = torch.arange(1.0, 7.0)
    return torch.stack([steps, 10 * steps], dim=1)[None]


def test_the_last_value_is_repeated(window: Tensor) -> None:
    assert LastValue(2, 6, 3)(window).mean.tolist() == [[[6, 60], [6, 60], [6, 60]]]


def test_the_mean_of_the_window_is_repeated(window: Tensor) -> None:
    assert WindowMean(2, 6, 2)(window).mean.tolist() == [[[3.5, 35], [3.5, 35]]]


@pytest.mark.parametrize(
    ("season", "horizon", "expected"),
    [
        (3, 2, [4, 5]),  # within a season
        (3, 3, [4, 5, 6]),
        (3, 7, [4, 5, 6, 4, 5, 6, 4]),  # beyond it
        (4, 6, [3, 4, 5, 6, 3, 4]),  # a season that does not divide the window
        (1, 3, [6, 6, 6]),
        (6, 8, [1, 2, 3, 4, 5, 6, 1, 2]),
    ],
)
def test_the_last_season_is_repeated(
    season: int, horizon: int, expected: list[int], window: Tensor
) -> None:
    forecast = SeasonalNaive(2, 6, horizon, season=season)(window).mean
    assert forecast.tolist() == [[[value, 10 * value] for value in expected]]


def test_a_season_of_one_step_is_the_last_value(window: Tensor) -> None:
    seasonal = SeasonalNaive(2, 6, 9, season=1)(window).mean
    torch.testing.assert_close(seasonal, LastValue(2, 6, 9)(window).mean, rtol=0, atol=0)


@pytest.mark.parametrize("season", [0, 7, -1])
def test_a_season_that_does_not_fit_the_window_is_refused(season: int) -> None:
    with pytest.raises(ValueError, match=rf"season must be within 1\.\.context 6, got {season}"):
        SeasonalNaive(2, 6, 3, season=season)


@pytest.mark.parametrize(
    "network", [LastValue(2, 6, 3), SeasonalNaive(2, 6, 3, season=2), WindowMean(2, 6, 3)]
)
def test_the_floors_have_nothing_to_learn(network: torch.nn.Module) -> None:
    assert not network.state_dict()
