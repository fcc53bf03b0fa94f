import numpy as np
import pandas as pd
import pytest
import torch

from tsattn.data import HOURLY_FOUR, calendar_marks, default_season, future_times
from tsattn.data.calendar import FEATURES
from tsattn.errors import ConfigError


def test_the_hourly_four_have_the_scaling_of_the_protocol() -> None:
    times = pd.DatetimeIndex(["2016-07-01 00:00", "2020-12-31 23:00", "2018-01-07 12:00"])
    marks = calendar_marks(times)
    assert HOURLY_FOUR == ("hour_of_day", "day_of_week", "day_of_month", "day_of_year")
    assert marks.dtype == torch.float32
    expected = [
        [0 / 23 - 0.5, 4 / 6 - 0.5, 0 / 30 - 0.5, 182 / 365 - 0.5],
        [23 / 23 - 0.5, 3 / 6 - 0.5, 30 / 30 - 0.5, 365 / 365 - 0.5],
        [12 / 23 - 0.5, 6 / 6 - 0.5, 6 / 30 - 0.5, 6 / 365 - 0.5],
    ]
    assert marks.numpy() == pytest.approx(np.array(expected), abs=1e-7)


@pytest.mark.parametrize(
    ("feature", "time", "expected"),
    [
        ("minute_of_hour", "2020-01-01 00:59", 0.5),
        ("minute_of_hour", "2020-01-01 00:15", 15 / 59 - 0.5),
        ("week_of_year", "2020-12-31", 52 / 52 - 0.5),
        ("week_of_year", "2021-01-04", -0.5),
        ("month_of_year", "2020-12-31", 0.5),
        ("month_of_year", "2020-01-31", -0.5),
    ],
)
def test_the_other_features(feature: str, time: str, expected: float) -> None:
    marks = calendar_marks(pd.DatetimeIndex([time]), [feature])
    assert marks.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_spans_exactly_minus_half_to_half(feature: str) -> None:
    times = pd.date_range("2015-01-01", "2021-12-31 23:59", freq="37min")
    marks = calendar_marks(times, [feature])
    assert (marks.min(), marks.max()) == (-0.5, 0.5)


def test_no_features_give_an_empty_axis() -> None:
    assert calendar_marks(pd.date_range("2020", periods=5), []).shape == (5, 0)


def test_an_unknown_feature_raises_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown calendar feature 'hour'.*hour_of_day"):
        calendar_marks(pd.date_range("2020", periods=5), ["hour"])


@pytest.mark.parametrize("freq", ["h", "15min", "7D", "MS", "ME", "QE", "YS", "B"])
def test_future_times_continue_the_series(freq: str) -> None:
    times = pd.date_range("2020-01-31", periods=20, freq=freq)
    following = future_times(times[11], pd.tseries.frequencies.to_offset(freq), 8)
    assert (following == times[12:]).all()


@pytest.mark.parametrize(
    ("step_seconds", "season"),
    [
        (600, 144),
        (900, 96),
        (3600, 24),
        (86_400, 7),
        (1.4 * 86_400, 5),
        (7 * 86_400, 52),
        (28 * 86_400, 12),
        (30.44 * 86_400, 12),
        (91.3 * 86_400, 4),
        (365.25 * 86_400, 1),
        (7 * 3600, 1),
        (14 * 86_400, 1),
    ],
)
def test_default_season(step_seconds: float, season: int) -> None:
    assert default_season(float(step_seconds)) == season
