"""Steps of users' files: fixed times, months, quarters, years, business days."""

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Reading, future_times, load_panel
from tsattn.data.describe import describe_dataset
from tsattn.data.steps import decode_step, encode_step, find_irregularities, infer_step


def wide(cells: list[str]) -> str:
    return "\n".join(["date,a", *(f"{cell},{index}" for index, cell in enumerate(cells))])


@pytest.mark.parametrize(
    ("freq", "style"),
    [
        ("MS", "%Y-%m"),
        ("MS", "%Y-%m-%d"),
        ("ME", "%Y-%m-%d"),
        ("QS", "%Y-%m-%d"),
        ("QE", "%Y-%m-%d"),
        ("YS", "%Y"),
        ("YE", "%Y-%m-%d"),
        ("B", "%Y-%m-%d"),
        ("2h", "%Y-%m-%dT%H:%M:%SZ"),
        ("500ms", "%Y-%m-%d %H:%M:%S.%f"),
        ("7D", "%Y-%m-%d"),
    ],
)
def test_calendar_steps_are_regular_and_continue(write_csv, freq: str, style: str) -> None:
    times = pd.date_range("2020-01-01", periods=30, freq=freq)
    panel = load_panel(write_csv(wide(list(times.strftime(style)[:20]))))
    assert (panel.series[0].times == times[:20]).all()
    assert (future_times(panel.end, panel.step, 10) == times[20:]).all()


def test_months_at_a_fixed_day_are_regular(write_csv) -> None:
    cells = [f"2020-{month:02}-15" for month in range(1, 13)]
    panel = load_panel(write_csv(wide(cells)))
    assert future_times(panel.end, panel.step, 2).strftime("%Y-%m-%d").tolist() == [
        "2021-01-15",
        "2021-02-15",
    ]
    assert "step: 1 month" in panel.notes
    assert 30 < panel.step_seconds / 86_400 < 31


def test_quarters_are_dates(write_csv) -> None:
    cells = [f"{year}Q{quarter}" for year in (2020, 2021) for quarter in (1, 2, 3, 4)]
    panel = load_panel(write_csv(wide(cells)))
    assert str(panel.end.date()) == "2021-10-01"


def test_business_days_are_called_so_everywhere(write_csv) -> None:
    path = write_csv(wide(list(pd.bdate_range("2020-01-01", periods=20).strftime("%Y-%m-%d"))))
    assert "step: a business day" in load_panel(path).notes
    assert dict(describe_dataset(path).facts)["step"] == "a business day"


@pytest.mark.parametrize("freq", ["h", "15min", "D", "B", "MS", "ME", "QE", "YS", "W-TUE"])
def test_a_step_survives_being_written_as_text(freq: str) -> None:
    times = pd.date_range("2020-01-07", periods=12, freq=freq)
    step = infer_step(times[:6])
    assert step is not None
    assert decode_step(encode_step(step)) == step
    assert (future_times(times[5], decode_step(encode_step(step)), 6) == times[6:]).all()


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("hour", [0, 16])
def test_holidays_among_business_days_are_filled_at_any_hour(hour: int, zone: str | None) -> None:
    """From 4 March on, so that the clock is set meanwhile."""
    full = pd.bdate_range("2024-03-04", periods=36) + pd.Timedelta(hours=hour)
    times, holidays = full[:24].tz_localize(zone), [3, 10]
    frame = pd.DataFrame({"date": times, "a": np.arange(24.0)}).drop(index=holidays)
    panel = load_panel(frame, reading=Reading(gaps="regularise", missing="mask"))
    assert panel.series[0].times.tolist() == times.tolist()
    assert np.flatnonzero(np.isnan(panel.series[0].values_RC[:, 0])).tolist() == holidays
    assert "step: a business day" in panel.notes
    ahead = future_times(panel.end, decode_step(encode_step(panel.step)), 12)
    assert ahead.tolist() == full[24:].tz_localize(zone).tolist()


def test_a_holiday_is_the_only_uneven_step_of_business_days_at_four() -> None:
    times = (pd.bdate_range("2024-03-04", periods=24) + pd.Timedelta(hours=16)).delete(3)
    found = find_irregularities(times)
    assert (found.usual, found.uneven) == ("a business day", (3,))


def test_weekdays_at_several_hours_are_no_business_days() -> None:
    days = pd.bdate_range("2024-03-04", periods=24)
    times = (days + pd.Timedelta(hours=16)).union(days + pd.Timedelta(hours=4))
    assert find_irregularities(times).usual == "12 h"
