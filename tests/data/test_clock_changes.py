"""Gaps in local times over the nights in which the clock is set."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsattn.data import Panel, Reading, load_panel
from tsattn.errors import DataError

ZONE = "Europe/Berlin"


def zoned(rows: int = 400, freq: str = "h", start: str = "2024-10-20") -> pd.DataFrame:
    times = pd.date_range(start, periods=rows, freq=freq, tz=ZONE)
    return pd.DataFrame({"date": times, "c0": np.arange(rows) * 1.0})


def local(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(date=frame["date"].dt.tz_localize(None))


def regularised(frame: pd.DataFrame, **reading: Any) -> Panel:
    return load_panel(frame, reading=Reading(gaps="regularise", missing="mask", **reading))


def require_kept(panel: Panel, full: pd.DataFrame, holes: list[int]) -> None:
    series = panel.series[0]
    assert series.times.tolist() == full["date"].tolist()
    expected = full["c0"].to_numpy().copy()
    expected[holes] = np.nan
    np.testing.assert_array_equal(series.values_RC[:, 0], expected)
    assert panel.treated.inserted == len(holes)


@pytest.mark.parametrize("holes", [[], [300], [170], [171], [20, 21, 170]])
@pytest.mark.parametrize("freq", ["h", "15min"])
@pytest.mark.parametrize("start", ["2024-10-20", "2024-03-24"])
def test_no_row_is_lost_where_an_hour_comes_twice(freq: str, start: str, holes: list[int]) -> None:
    full = zoned(400 if freq == "h" else 1600, freq, start)
    gappy = full.drop(index=holes)
    require_kept(regularised(gappy), full, holes)
    night = full["date"].dt.tz_localize(None).duplicated(keep=False)
    if not night[holes].any():  # else local times do not say which of the two lacks
        require_kept(regularised(local(gappy), time_zone=ZONE), full, holes)


@settings(max_examples=25)
@given(holes=st.sets(st.integers(1, 398), max_size=60))
def test_gaps_of_hours_in_a_zone_are_those_of_utc(holes: set[int]) -> None:
    full = zoned()
    panel = regularised(full.drop(index=sorted(holes)))
    require_kept(panel, full, sorted(holes))
    assert panel.step == pd.Timedelta(hours=1)


def test_days_of_a_zone_stay_days_of_the_clock_on_the_wall() -> None:
    full = zoned(100, "D")
    require_kept(regularised(full.drop(index=[6, 7, 8])), full, [6, 7, 8])


@pytest.mark.parametrize("rows", [2, 6, 40])
@pytest.mark.parametrize(
    ("freq", "first"),
    [("h", "2024-10-27 01:00Z"), ("15min", "2024-10-27 01:00Z"), ("15min", "2024-10-27 01:30Z")],
)
def test_rows_may_begin_within_the_second_of_two_hours(freq: str, first: str, rows: int) -> None:
    rows += 4 if freq == "15min" else 0
    full = zoned(rows, freq)
    full["date"] = pd.date_range(first, periods=rows, freq=freq).tz_convert(ZONE)
    panel = load_panel(local(full), reading=Reading(time_zone=ZONE))
    assert panel.series[0].times.tolist() == full["date"].tolist()


@pytest.mark.parametrize("first", ["2024-10-27 00:00Z", "2024-10-27 00:30Z"])
def test_rows_may_begin_within_the_first_of_two_hours(first: str) -> None:
    full = zoned(40, "15min")
    full["date"] = pd.date_range(first, periods=40, freq="15min").tz_convert(ZONE)
    panel = load_panel(local(full), reading=Reading(time_zone=ZONE))
    assert panel.series[0].times.tolist() == full["date"].tolist()


def test_days_that_begin_in_the_hour_that_comes_twice_begin_in_the_first() -> None:
    times = pd.date_range("2024-10-27 02:30", periods=20)
    frame = pd.DataFrame({"date": times, "c0": np.arange(20) * 1.0})
    first = load_panel(frame, reading=Reading(time_zone=ZONE)).series[0].times[0]
    assert first.utcoffset() == pd.Timedelta(hours=2)


def test_a_series_that_repeats_a_local_time_is_on_no_grid_of_the_wall() -> None:
    days = zoned(100, "D", "2024-08-01").assign(unique_id="x").rename(columns={"date": "ds"})
    twice = pd.DatetimeIndex(["2024-10-27T00:30Z", "2024-10-27T01:30Z"]).tz_convert(ZONE)
    other = pd.DataFrame({"ds": twice, "c0": [1.0, 2.0], "unique_id": "y"})
    frame = pd.concat([days, other], ignore_index=True).rename(columns={"c0": "y"})
    with pytest.raises(DataError, match="series 'y': not on the grid of 1 d"):
        regularised(frame)
