"""Duplicates, gaps, time zones and counted steps of one's own files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Panel, Reading, load_panel, prepare
from tsattn.data.calendar import future_times
from tsattn.data.treatment import Treated, Treatment
from tsattn.errors import ConfigError, DataError

WriteCsv = Callable[..., Path]
ZONE = "Europe/Berlin"


def hourly(rows: int = 60, start: str = "2020-01-01", **options: Any) -> pd.DataFrame:
    times = pd.date_range(start, periods=rows, freq=options.pop("freq", "h"), **options)
    return pd.DataFrame({"date": times, "a": np.arange(rows) + 0.5, "b": -np.arange(rows) * 2.0})


def read(frame: pd.DataFrame | Path, **reading: Any) -> Panel:
    return load_panel(frame, reading=Reading(**reading))


def refusal(frame: pd.DataFrame | Path, **reading: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(frame, **reading)
    return str(caught.value)


def with_duplicates() -> pd.DataFrame:
    frame = hourly()
    return frame.iloc[[*range(11), 10, 10, *range(11, 60)]].assign(a=np.arange(62.0))


def test_duplicates_are_refused_with_the_options_that_help() -> None:
    message = refusal(with_duplicates())
    assert "duplicate timestamps at rows 11, 12 (2020-01-01 10:00:00" in message
    assert "--data.duplicates first, last or mean" in message


@pytest.mark.parametrize(("how", "kept"), [("first", 10.0), ("last", 12.0), ("mean", 11.0)])
def test_duplicates_become_one_row(how: str, kept: float) -> None:
    panel = read(with_duplicates(), duplicates=how)
    values_RC = panel.series[0].values_RC
    assert values_RC[:12, 0].tolist() == [*range(10), kept, 13.0]
    assert panel.treated == Treated(values=120, merged=2)
    assert f"duplicate timestamps: 2 row(s) merged, {how} kept" in panel.notes
    assert (panel.series[0].times == hourly()["date"]).all()


def test_the_mean_of_duplicates_is_that_of_the_values_that_are_there() -> None:
    frame = with_duplicates()
    frame.iloc[11, 1] = np.nan
    panel = read(frame, duplicates="mean", missing="mask")
    assert panel.series[0].values_RC[10, 0] == 11.0
    assert panel.treated.missing == 0


def test_rows_out_of_order_are_no_duplicates() -> None:
    frame = with_duplicates().iloc[[*range(30), 31, 30, *range(32, 62)]]
    assert "unsorted timestamps at row 31" in refusal(frame, duplicates="mean")


def test_gaps_are_refused_with_the_options_that_help() -> None:
    message = refusal(hourly().drop(index=[20, 21]))
    assert "row 20 (2020-01-01 22:00:00) comes 3 h after the row above" in message
    assert "--data.gaps regularise together with --data.missing interpolate or mask" in message


FULL = {
    "hours": hourly(),
    "month ends": hourly(freq="ME"),
    "month starts": hourly(freq="MS"),
    "quarters": hourly(freq="QS"),
    "business days": hourly(start="2020-01-06", freq="B"),
    "weeks": hourly(freq="W-WED"),
    "years": hourly(freq="YS"),
    "business month ends": hourly(freq="BME"),
    "business month starts": hourly(freq="BMS"),
    "days in a zone": hourly(start="2020-03-01", freq="D", tz=ZONE),
    "hours in a zone": hourly(start="2020-03-28", tz=ZONE),
}


@pytest.mark.parametrize("case", FULL)
def test_gaps_are_filled_with_rows_without_values(case: str) -> None:
    full, holes = FULL[case], [3, 4, 25, 40, 41]
    panel = read(full.drop(index=holes), gaps="regularise", missing="mask")
    assert panel.series[0].times.tolist() == full["date"].tolist()
    values_RC = panel.series[0].values_RC
    assert np.flatnonzero(np.isnan(values_RC).all(axis=1)).tolist() == holes
    np.testing.assert_array_equal(np.delete(values_RC[:, 0], holes), full["a"].drop(index=holes))
    assert panel.treated == Treated(missing=10, values=120, inserted=5)
    assert panel.step == read(full).step
    assert "gaps: 5 row(s) inserted" in panel.notes


@pytest.mark.parametrize("freq", ["BQE", "BQS-FEB", "2BME", "BYE", "QE", "2MS"])
def test_gaps_of_calendar_steps_are_filled_and_lead_on(freq: str) -> None:
    full = hourly(freq=freq)
    panel = read(full.drop(index=[10, 11, 40]), gaps="regularise", missing="mask")
    assert panel.series[0].times.tolist() == full["date"].tolist()
    ahead = future_times(full["date"].iloc[50], panel.step, 9)
    assert ahead.tolist() == full["date"].iloc[51:].tolist()


def test_a_step_at_which_most_rows_lack_is_refused() -> None:
    frame = hourly(freq="WOM-3FRI").drop(index=[10, 11, 40])
    message = refusal(frame, gaps="regularise", missing="mask")
    assert "rows would have to be inserted, more than half" in message
    assert "resample to the step that is meant" in message


def test_half_of_the_rows_may_lack() -> None:
    full = hourly(61)
    panel = read(full.drop(index=range(1, 31)), gaps="regularise", missing="mask")
    assert panel.treated.inserted == 30
    holes = [*range(1, 31), 33]
    assert "31 of 61 rows" in refusal(full.drop(index=holes), gaps="regularise", missing="mask")


def test_series_of_a_long_frame_are_regularised_each_by_itself() -> None:
    parts = [
        pd.DataFrame({"unique_id": name, "ds": hourly(rows)["date"], "y": np.arange(rows) * 1.0})
        for name, rows in (("x", 60), ("y", 50))
    ]
    whole = pd.concat(parts, ignore_index=True)
    panel = read(whole.drop(index=[7, 61, 62]), gaps="regularise", missing="interpolate")
    assert panel.lengths == (60, 50)
    assert [np.flatnonzero(np.isnan(s.values_RC[:, 0])).tolist() for s in panel.series] == [
        [7],
        [1, 2],
    ]


def test_regularising_needs_a_policy_for_missing_values() -> None:
    with pytest.raises(
        ConfigError, match=r"set --data\.missing interpolate or --data\.missing mask"
    ):
        read(hourly(), gaps="regularise")


def test_rows_off_the_grid_are_named() -> None:
    frame = hourly()
    frame.loc[30, "date"] = pd.Timestamp("2020-01-02 06:07")
    message = refusal(frame, gaps="regularise", missing="mask")
    assert "irregular step: usual is 1 h" in message
    assert "row 30 (2020-01-02 06:07:00)" in message


def test_an_absurd_timestamp_does_not_insert_millions_of_rows() -> None:
    frame = hourly()
    frame.loc[59, "date"] = pd.Timestamp("2999-01-01")
    message = refusal(frame, gaps="regularise", missing="mask")
    assert "rows lack between" in message
    assert "look at the timestamps" in message


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"missing": "drop"}, "unknown missing 'drop'; expected one of error, interpolate, mask"),
        ({"duplicates": "max"}, "unknown duplicates 'max'"),
        ({"gaps": "fill"}, "unknown gaps 'fill'"),
        ({"time_zone": "Berlin"}, r"unknown time zone 'Berlin' \(nearest: Europe/Berlin\)"),
        ({"time_zone": "../etc"}, "unknown time zone"),
    ],
)
def test_unknown_policies_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Treatment(**given)


def local(start: str, rows: int = 60, freq: str = "h") -> pd.DataFrame:
    """Return local times as a file has them: without a zone, over the night of a clock change."""
    frame = hourly(rows, start=start, freq=freq, tz=ZONE)
    return frame.assign(date=frame["date"].dt.tz_localize(None))


@pytest.mark.parametrize("freq", ["h", "30min", "15min"])
@pytest.mark.parametrize(
    ("start", "what"), [("2020-03-28 12:00", "is skipped"), ("2020-10-24 18:00", "comes twice")]
)
def test_local_times_over_a_clock_change_are_recognised_and_the_zone_helps(
    start: str, what: str, freq: str
) -> None:
    frame = local(start, 100, freq)
    message = refusal(frame)
    assert f"An hour {what} in the night of 2020-" in message
    assert "--data.time_zone Europe/Berlin" in message
    panel = read(frame, time_zone=ZONE)
    expected = pd.date_range(start, periods=100, freq=freq, tz=ZONE)
    assert panel.series[0].times.tolist() == expected.tolist()
    assert panel.step == pd.Timedelta(freq if freq != "h" else "1h")
    assert f"time zone: local times of {ZONE}" in panel.notes


def test_a_gap_at_noon_is_no_clock_change() -> None:
    assert "clock" not in refusal(hourly().drop(index=[36]))


def test_times_that_do_not_exist_in_the_zone_are_named() -> None:
    message = refusal(hourly(start="2020-03-28"), time_zone=ZONE)
    assert "no such local time in Europe/Berlin" in message
    assert "row 26: 2020-03-29 02:00:00" in message


def test_days_go_by_the_clock_on_the_wall(write_csv: WriteCsv) -> None:
    frame = hourly(start="2020-03-01", freq="D", tz=ZONE)
    panel = read(frame)
    assert panel.step == pd.Timedelta(days=1)
    ahead = future_times(pd.Timestamp("2020-03-27", tz=ZONE), panel.step, 5)
    assert ahead.hour.tolist() == [0] * 5
    by_time = future_times(pd.Timestamp("2020-03-27", tz=ZONE), panel.step, 5, by_wall=False)
    assert by_time.hour.tolist() == [0, 0, 1, 1, 1]


def test_the_calendar_is_that_of_the_zone() -> None:
    utc = hourly(200, start="2020-03-20", tz="UTC")
    panel = read(utc, time_zone=ZONE)
    marks = prepare(panel, context=5, horizon=2, calendar=["hour_of_day"]).train.marks_RM
    hours = ((marks[:, 0] + 0.5) * 23).round().int().tolist()
    assert hours == utc["date"].dt.tz_convert(ZONE).dt.hour.tolist()


def test_utc_offsets_of_a_file_are_brought_into_the_zone(write_csv: WriteCsv) -> None:
    times = pd.date_range("2020-03-28 20:00", periods=40, freq="h", tz=ZONE)
    lines = [f"{time.isoformat()},{row}" for row, time in enumerate(times)]
    panel = read(write_csv("\n".join(["date,a", *lines])), time_zone=ZONE)
    assert panel.series[0].times.tolist() == times.tolist()


def test_integers_count_steps() -> None:
    frame = hourly().assign(date=np.arange(60) * 5 - 20).rename(columns={"date": "time"})
    panel = read(frame)
    assert panel.integers
    assert "time: counted steps, no calendar" in panel.notes
    assert "step: 5" in panel.notes
    marks = prepare(panel, context=5, horizon=2).train.marks_RM
    assert (marks == 0).all()


def test_integers_that_are_not_regular_are_named_as_integers() -> None:
    frame = hourly().assign(date=np.arange(60)).rename(columns={"date": "time"})
    message = refusal(frame.drop(index=[30]))
    assert "usual is 1, but row 30 (31) comes 2 after the row above" in message
    twice = frame.iloc[[*range(31), 30, *range(31, 60)]]
    assert "duplicate timestamps at row 31 (30)" in refusal(twice)
    panel = read(frame.drop(index=[30]), gaps="regularise", missing="mask")
    assert panel.lengths == (60,)


def test_integers_of_a_long_file_count_steps_too(write_csv: WriteCsv) -> None:
    lines = ["unique_id,ds,y", *(f"{s},{t},{t * s}" for s in (1, 2) for t in range(1, 41))]
    panel = read(write_csv("\n".join(lines)))
    assert panel.integers
    assert panel.lengths == (40, 40)


@pytest.mark.parametrize(
    "cells",
    [
        [str(year) for year in range(1990, 2030)],
        [f"202001{day:02}" for day in range(1, 31)],
    ],
)
def test_years_and_eight_digit_dates_are_no_counted_steps(cells: list[str]) -> None:
    panel = read(pd.DataFrame({"date": cells, "a": range(len(cells))}))
    assert not panel.integers
