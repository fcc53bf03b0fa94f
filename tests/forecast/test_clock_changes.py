"""Forecasts of local times over the nights in which the clock is set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.made import wide_frame
from tsattn.data import Reading, load_panel
from tsattn.forecast import Forecaster

ZONE = "Europe/Berlin"
MENDED = Reading(gaps="regularise", missing="mask", time_zone=ZONE)


def local_frame(freq: str, end: str) -> pd.DataFrame:
    """Return local times of Berlin, the last few after the clock was set back."""
    times = pd.date_range(end=end, periods=120, freq=freq, tz=ZONE)
    return wide_frame(120).assign(date=times.tz_localize(None))


@pytest.mark.parametrize("holes", [[100], [60, 107], [118, 110, 111, 112]])
@pytest.mark.parametrize(
    ("freq", "end"), [("h", "2024-10-27 08:00"), ("15min", "2024-10-27 03:30"), ("D", "2024-10-31")]
)
def test_training_and_forecast_see_the_same_rows(
    train: Callable[..., Path], freq: str, end: str, holes: list[int]
) -> None:
    frame = local_frame(freq, end).drop(index=holes)
    options = {"gaps": "regularise", "missing": "mask", "time_zone": ZONE}
    forecaster = Forecaster.load(train(frame, **options))
    history = forecaster.outlook(frame).history
    trained = load_panel(frame, reading=MENDED).series[0]
    assert trained.num_rows == 120
    assert history.times[history.rows_KN[0]].tolist() == trained.times[-12:].tolist()
    np.testing.assert_array_equal(history.values_KN.T, trained.values_RC[-12:])


def test_days_keep_their_hour_where_the_night_of_the_change_lacks(
    train: Callable[..., Path],
) -> None:
    """The last rows alone, all of winter, would also lie on a grid of UTC."""
    full = local_frame("D", "2024-10-31")
    options = {"gaps": "regularise", "missing": "mask", "time_zone": ZONE}
    forecaster = Forecaster.load(train(full, **options))
    history = forecaster.outlook(full.drop(index=list(range(107, 116)))).history
    times = history.times[history.rows_KN[0]]
    assert times.tz_localize(None).tolist() == full["date"].iloc[-12:].tolist()
