"""UTC offsets behind dates of numbers and behind dates with month names."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tsattn.data import Panel, Reading, load_panel
from tsattn.errors import DataError

WriteCsv = Callable[..., Path]
ZONE = "Europe/Berlin"
STYLES = {
    "numbers": "%Y-%m-%d %H:%M:%S",
    "month name": "%d %b %Y %H:%M:%S ",
    "RFC 2822": "%a, %d %b %Y %H:%M:%S ",
    "12 hours": "%B %d, %Y %I:%M %p ",
}


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_panel(path)
    return str(caught.value)


def column(cells: list[str]) -> str:
    return "\n".join(["date;a", *(f"{cell};{row}" for row, cell in enumerate(cells))])


def hours(style: str, offset: str, rows: int = 6, start: str = "2020-01-01") -> list[str]:
    times = pd.date_range(start, periods=rows, freq="h")
    return [f"{time:{STYLES[style]}}{offset}" for time in times]


def require_start(panel: Panel, start: str, clock: str | None) -> None:
    assert (str(panel.start), panel.clock) == (start, clock)
    assert panel.step == pd.Timedelta(hours=1)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("offset", "clock", "local"),
    [
        ("+0530", "UTC+05:30", "2019-12-31 19:30:00+01:00"),
        ("+01:00", "UTC+01:00", "2020-01-01 00:00:00+01:00"),
        ("-05", "UTC-05:00", "2020-01-01 06:00:00+01:00"),
        ("+00", "UTC", "2020-01-01 01:00:00+01:00"),
        (" GMT", "UTC", "2020-01-01 01:00:00+01:00"),
        (" UTC", "UTC", "2020-01-01 01:00:00+01:00"),
        ("Z", "UTC", "2020-01-01 01:00:00+01:00"),
    ],
)
def test_one_offset_is_dropped_unless_a_zone_is_named(
    write_csv: WriteCsv, style: str, offset: str, clock: str, local: str
) -> None:
    path = write_csv(column(hours(style, offset)))
    panel = load_panel(path)
    require_start(panel, "2020-01-01 00:00:00", clock)
    assert f"UTC offset {offset.strip()} is dropped: times stay as written" in panel.notes
    require_start(load_panel(path, reading=Reading(time_zone=ZONE)), local, ZONE)


@pytest.mark.parametrize("style", STYLES)
def test_times_with_several_offsets_are_taken_in_utc(write_csv: WriteCsv, style: str) -> None:
    times = pd.date_range("2020-03-29", periods=6, freq="h", tz=ZONE)
    path = write_csv(column([f"{time:{STYLES[style]}%z}" for time in times]))
    panel = load_panel(path)
    require_start(panel, "2020-03-28 23:00:00", "UTC")
    assert "UTC offsets differ: times are taken in UTC" in panel.notes
    in_zone = load_panel(path, reading=Reading(time_zone=ZONE))
    assert in_zone.series[0].times.tolist() == times.tolist()


@pytest.mark.parametrize("style", ["numbers", "month name"])
def test_names_of_one_offset_do_not_differ(write_csv: WriteCsv, style: str) -> None:
    plain = hours(style, "")
    offsets = ["Z", "+00:00", "+0000", "+00", " GMT", "-0000"]
    panel = load_panel(write_csv(column([a + b for a, b in zip(plain, offsets, strict=True)])))
    require_start(panel, "2020-01-01 00:00:00", "UTC")


@pytest.mark.parametrize("style", ["%a %b %d %H:%M:%S +0100 %Y", "%a %b %d %H:%M:%S %Y +0100"])
def test_the_year_may_stand_on_either_side_of_the_offset(write_csv: WriteCsv, style: str) -> None:
    cells = list(pd.date_range("2020-01-01", periods=6, freq="h").strftime(style))
    require_start(load_panel(write_csv(column(cells))), "2020-01-01 00:00:00", "UTC+01:00")


@pytest.mark.parametrize("style", ["numbers", "month name"])
def test_an_offset_for_some_rows_only_is_refused(write_csv: WriteCsv, style: str) -> None:
    cells = [*hours(style, "+0100")[:3], *hours(style, "")[3:]]
    assert "some timestamps have a UTC offset and others none" in refusal(write_csv(column(cells)))


@pytest.mark.parametrize("style", ["numbers", "month name"])
def test_a_cell_that_is_no_timestamp_is_named_beside_offsets(
    write_csv: WriteCsv, style: str
) -> None:
    cells = [*hours(style, "+0100"), "soon"]
    assert "no timestamp in line 8: 'soon'" in refusal(write_csv(column(cells)))


@pytest.mark.parametrize(
    "cell",
    [
        "2020-01-0{} 00:00:00+99:99",
        "2020-01-0{} 00:00:00+16",
        "2020-01-0{}-05",
        "2020-01-0{} GMT+1",
        "0{} Jan 2020 00:00:00 +9999",
        "0{} Jan 2020 00:00:00 CET",
        "0{} Jan 2020 00:00:00 GMT+0100",
        "0{} Jan 2020 -0500",
    ],
)
def test_what_is_no_offset_is_refused(write_csv: WriteCsv, cell: str) -> None:
    path = write_csv(column([cell.format(day) for day in range(1, 4)]))
    with pytest.raises(DataError, match="no timestamp in lines 2, 3, 4"):
        load_panel(path, reading=Reading(time_column="date"))


@pytest.mark.parametrize("style", ["%d-%b-%Y", "%b %d, %Y %H:%M", "%d %B %Y", "%H:%M, %d %b %Y"])
def test_a_year_or_a_day_is_no_offset(write_csv: WriteCsv, style: str) -> None:
    times = pd.date_range("2020-01-01", periods=30)
    panel = load_panel(write_csv(column(list(times.strftime(style)))))
    assert (panel.series[0].times == times).all()
    assert panel.clock is None
