"""What a training before a window reads: rows with the policy, zone and order of the history."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dateutil.tz import gettz

from tests.forecast.conftest import Fit, Train
from tests.forecast.made import long_frame, wide_frame
from tests.forecast.test_intervals import DLINEAR
from tsattn.data import Panel, Reading, load_panel
from tsattn.errors import ConfigError
from tsattn.forecast import Forecaster
from tsattn.forecast.history import History
from tsattn.forecast.reading import read_history
from tsattn.forecast.refit_rows import RefitRows
from tsattn.forecast.sources import open_source
from tsattn.training.refit import refit, undisturbed_process

ZONE = "Europe/Berlin"


def history_of(
    forecaster: Forecaster, frame: Any, *, sort: bool = False, reading: Reading | None = None
) -> History:
    source = open_source(frame, reading or Reading())
    return read_history(source, forecaster.trained, 16, sort=sort, needed="the window")


def rows_of(forecaster: Forecaster, frame: Any, *, sort: bool = False, **said: Any) -> RefitRows:
    history = history_of(forecaster, frame, sort=sort, reading=Reading(**said))
    return RefitRows.of(history, forecaster.trained, sort=sort)


def read_again(rows: RefitRows, home: Path, held_back: int = 4) -> Panel:
    """Write the rows before a window, and read them as a training would."""
    file = home / "rows.csv"
    rows.before(held_back).to_csv(file, index=False)
    said: dict[str, Any] = {
        name: None if word == "null" else word for name, word in rows.settings.items()
    }
    return load_panel(str(file), reading=Reading(**said))


def assert_rows(panel: Panel, times: pd.DatetimeIndex, frame: pd.DataFrame) -> None:
    """Compare with what is to be read, its times in local time without a zone."""
    (series,) = panel.series
    assert series.times.tz_localize(None).tolist() == times.tolist()
    np.testing.assert_array_equal(series.values_RC, frame[list(panel.channels)])


def test_holes_gaps_and_duplicates_are_mended_once(wide: Forecaster, tmp_path: Path) -> None:
    frame = wide_frame()
    frame.loc[[7, 60], "b"] = np.nan
    torn = pd.concat([frame, frame.iloc[[70]].assign(a=1e6)]).sort_index(kind="stable")
    torn = torn.drop(index=[30, 31])
    said: dict[str, Any] = {"missing": "mask", "duplicates": "first", "gaps": "regularise"}
    rows = rows_of(wide, torn, **said)
    frame.loc[[30, 31], ["a", "b", "c"]] = np.nan
    assert_rows(read_again(rows, tmp_path), pd.DatetimeIndex(frame["date"])[:-4], frame[:-4])
    assert rows.settings["missing"] == "mask"


def test_shuffled_rows_are_ordered(wide: Forecaster, long: Forecaster, tmp_path: Path) -> None:
    frame = wide_frame()
    shuffled = frame.sample(frac=1, random_state=1)
    panel = read_again(rows_of(wide, shuffled, sort=True), tmp_path)
    assert_rows(panel, pd.DatetimeIndex(frame["date"])[:-4], frame[:-4])
    series = long_frame()
    panel = read_again(rows_of(long, series.sample(frac=1, random_state=1), sort=True), tmp_path)
    for one in panel.series:
        expected = series[series["unique_id"] == one.id].iloc[:-4]
        assert one.times.tolist() == expected["ds"].tolist()
        np.testing.assert_array_equal(one.values_RC[:, 0], expected["y"])


@pytest.mark.parametrize("first", [100, 2882])  # 2882 to 2997 alone would be years
def test_counted_steps_stay_counted(train: Train, tmp_path: Path, first: int) -> None:
    frame = wide_frame().assign(date=range(first, first + 120))
    counting = Forecaster.load(train(wide_frame().assign(date=range(120))))
    panel = read_again(rows_of(counting, frame), tmp_path)
    assert panel.integers
    assert panel.step == pd.Timedelta(seconds=1)
    np.testing.assert_array_equal(panel.series[0].values_RC, frame.iloc[:-4, 1:])


@pytest.mark.parametrize("night", ["2020-03-28", "2020-10-24"])
def test_frames_with_a_zone_keep_their_local_time(
    wide: Forecaster, tmp_path: Path, night: str
) -> None:
    times = pd.date_range(night, periods=120, freq="h", tz="UTC").tz_convert(ZONE)
    frame = wide_frame().assign(date=times)
    rows = rows_of(wide, frame)
    assert rows.zone == ZONE
    panel = read_again(rows, tmp_path)
    assert_rows(panel, times.tz_localize(None)[:-4], frame[:-4])
    assert panel.series[0].times.tolist() == times[:-4].tolist()
    assert panel.step == pd.Timedelta(hours=1)
    with pytest.raises(ConfigError, match="which a file cannot name; name it with"):
        rows_of(wide, frame.assign(date=times.tz_convert(gettz(ZONE))))


def test_local_times_of_a_named_zone_are_told_apart(wide: Forecaster, tmp_path: Path) -> None:
    times = pd.date_range("2020-10-24", periods=120, freq="h", tz="UTC").tz_convert(ZONE)
    written = wide_frame().assign(date=times.tz_localize(None))
    panel = read_again(rows_of(wide, written, time_zone=ZONE), tmp_path)
    assert panel.series[0].times.tolist() == times[:-4].tolist()
    file = tmp_path / "offsets.csv"
    written.assign(date=times.strftime("%Y-%m-%d %H:%M:%S%z")).to_csv(file, index=False)
    panel = read_again(rows_of(wide, str(file), time_zone=ZONE), tmp_path)
    assert panel.series[0].times.tolist() == times[:-4].tolist()


def test_days_of_a_zone_and_one_offset_are_local_times(long: Forecaster, tmp_path: Path) -> None:
    times = pd.date_range("2020-03-01", periods=90, freq="D", tz=ZONE)
    frame = long_frame((90,)).assign(ds=times)
    panel = read_again(rows_of(long, frame), tmp_path)
    assert panel.series[0].times.tolist() == times[:-4].tolist()
    fixed = long_frame((90,)).assign(ds=times.tz_localize(None).tz_localize("+05:30"))
    rows = rows_of(long, fixed)
    assert rows.zone is None
    assert read_again(rows, tmp_path).series[0].times.tolist() == [
        one.tz_localize(None) for one in times[:-4]
    ]


def test_refit_does_with_holes_what_the_training_did(fitted: Fit, tmp_path: Path) -> None:
    frame = wide_frame(220)
    frame.loc[[30, 31, 200, 212, 214], "a"] = np.nan
    run = fitted(frame, *DLINEAR, "--data.missing", "interpolate")
    made = Forecaster.load(run).backtest(frame, refit=True)
    before = frame.iloc[:-4]
    before.to_csv(tmp_path / "before.csv", index=False)
    with undisturbed_process():
        refit(run, data=tmp_path / "before.csv", run_dir=tmp_path / "again")
    expected = Forecaster.load(tmp_path / "again").predict(before)
    forecast_HK = made.forecast_WHK["original"][0]
    np.testing.assert_allclose(forecast_HK, expected[["a", "b", "c"]], rtol=1e-4)


def test_refit_takes_the_policy_zone_and_order_that_were_given(fitted: Fit) -> None:
    times = pd.date_range("2020-03-25", periods=220, freq="h", tz="UTC").tz_convert(ZONE)
    frame = wide_frame(220).assign(date=times.tz_localize(None))
    forecaster = Forecaster.load(fitted(wide_frame(220), *DLINEAR))
    said = Reading(missing="interpolate", time_zone=ZONE)
    holed = frame.copy()
    holed.loc[[30, 31, 212], "a"] = np.nan
    made = forecaster.backtest(holed, refit=True, reading=said)
    shuffled = holed.sample(frac=1, random_state=1)
    again = forecaster.backtest(shuffled, refit=True, sort=True, reading=said)
    np.testing.assert_allclose(
        again.forecast_WHK["original"], made.forecast_WHK["original"], rtol=1e-6
    )
    plain = forecaster.backtest(holed, reading=said)
    assert not np.allclose(plain.forecast_WHK["original"], made.forecast_WHK["original"])
