"""Forecasts of local times over the nights in which the clock is set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.made import wide_frame
from tsattn.data import Reading, load_panel
from tsattn.errors import CheckpointError
from tsattn.forecast import Forecaster
from tsattn.models import EncoderDecoderTransformer, PatchTST
from tsattn.training import ForecastData
from tsattn.training.checkpoint import RECORD, read_checkpoint

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


def knowing(data: ForecastData) -> PatchTST:
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    return PatchTST(
        data.channels, 12, 4, patch_length=4, known_covariates=data.known_covariates, **sizes
    )


def test_what_is_known_ahead_may_begin_in_the_second_of_two_hours(
    train: Callable[..., Path],
) -> None:
    frame = local_frame("h", "2024-10-27 08:00")
    last = int(frame.index[frame["date"].duplicated()][0]) - 1  # the first of the two
    names = {"time_zone": ZONE, "known_future": ["c"], "calendar": []}
    forecaster = Forecaster.load(train(frame, build=knowing, **names))
    past, future = frame.iloc[: last + 1], frame.iloc[last + 1 : last + 5]
    made = forecaster.predict(past, future=future[["date", "c"]])
    assert made["date"].tolist() == future["date"].tolist()
    joined = pd.concat([past, future.assign(a=np.nan, b=np.nan)], ignore_index=True)
    pd.testing.assert_frame_equal(forecaster.predict(joined), made)


def by_calendar(data: ForecastData) -> EncoderDecoderTransformer:
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "encoder_layers": 1}
    return EncoderDecoderTransformer(
        data.channels, 12, 4, calendar_features=data.calendar_features, **sizes
    )


def with_offsets(times: pd.DatetimeIndex) -> pd.DataFrame:
    return wide_frame(len(times)).assign(date=[time.isoformat() for time in times])


OVER_THE_CHANGE = pd.date_range("2024-10-25", periods=120, freq="h", tz=ZONE)


@pytest.mark.parametrize(
    ("trained_on", "clock"),
    [
        (OVER_THE_CHANGE, "UTC"),
        (OVER_THE_CHANGE.tz_convert("+02:00"), "UTC+02:00"),
        (OVER_THE_CHANGE.tz_convert("-03:30"), "UTC-03:30"),
    ],
)
def test_the_calendar_does_not_depend_on_the_offsets_that_a_file_happens_to_hold(
    train: Callable[..., Path], trained_on: pd.DatetimeIndex, clock: str
) -> None:
    path = train(with_offsets(trained_on), build=by_calendar)
    assert read_checkpoint(path)[RECORD]["data"]["clock"] == clock
    forecaster = Forecaster.load(path)
    expected = forecaster.predict(with_offsets(trained_on))
    whole = with_offsets(OVER_THE_CHANGE)
    utc = with_offsets(OVER_THE_CHANGE.tz_convert("UTC"))
    aware = whole.assign(date=OVER_THE_CHANGE)
    for frame in (whole, whole.iloc[-12:], utc.iloc[-20:], aware, aware.iloc[-12:]):
        made = forecaster.predict(frame)
        np.testing.assert_array_equal(made.iloc[:, 1:], expected.iloc[:, 1:])
        moments = pd.to_datetime(made["date"], utc=True)
        assert moments.tolist() == pd.to_datetime(expected["date"], utc=True).tolist()
    assert str(forecaster.predict(whole.iloc[-12:])["date"].iloc[0]).endswith("+01:00")
    assert str(forecaster.predict(aware)["date"].dt.tz) == ZONE


def test_a_checkpoint_without_a_clock_takes_times_as_they_are_written(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    path = train(with_offsets(OVER_THE_CHANGE), build=by_calendar)
    content = read_checkpoint(path)
    winter = with_offsets(OVER_THE_CHANGE).iloc[-12:]
    del content[RECORD]["data"]["clock"]
    torch.save(content, tmp_path / "old.ckpt")
    old = Forecaster.load(tmp_path / "old.ckpt").outlook(winter)
    assert old.calendar.past[0][-1].hour == OVER_THE_CHANGE[-1].hour
    content[RECORD]["data"]["clock"] = "Atlantis"
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(CheckpointError, match="record of the data is damaged"):
        Forecaster.load(tmp_path / "old.ckpt")


def test_times_without_a_zone_have_no_clock(train: Callable[..., Path]) -> None:
    assert "clock" not in read_checkpoint(train(wide_frame()))[RECORD]["data"]
