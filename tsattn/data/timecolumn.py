"""The time column of a table: which it is, and its timestamps."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsattn.data.amounts import quoted
from tsattn.data.integers import from_integers, holds_integers
from tsattn.data.offsets import OFFSETS_DIFFER
from tsattn.data.reading import Reading
from tsattn.data.table import Table
from tsattn.data.timestamps import ParsedTimes, holds_months, looks_like_time, parse_times
from tsattn.data.treatment import Treatment
from tsattn.data.zones import in_zone
from tsattn.errors import DataError

TIME_NAMES = ("date", "datetime", "date_time", "timestamp", "time", "ds", "")
_SAMPLE = 50
_SHOWN = 5
_NAME_THE_ZONE = (
    "time zone: --data.time_zone (such as Europe/Berlin) makes the calendar that of the place"
)


def find_time_column(table: Table, given: str | None) -> int:
    """Return the position of the time column.

    Args:
        table: Header and cells.
        given: Its name, where the user has said it.

    Raises:
        DataError: No column holds timestamps, or several do, or there is no header.
    """
    if given is not None:
        if given in table.columns:
            return table.columns.index(given)
        close = difflib.get_close_matches(given, table.columns, n=1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise DataError(
            f"{table.label}: no time column {given!r}{hint}; the columns are "
            f"{quoted(table.columns)}"
        )
    found = [column for column in range(len(table.columns)) if _holds_time(table, column)]
    if not found:
        named = [place for place, name in enumerate(table.lowered) if name and name in TIME_NAMES]
        found = named[:1] or [
            column for column in range(len(table.columns)) if _holds_months(table, column)
        ]
    if not found:
        first = ", ".join(
            f"{name!r} {table.text(column, 1).iloc[0]!r}"
            for column, name in enumerate(table.columns[:_SHOWN])
        )
        raise DataError(
            f"{table.label}: no time column: none of the columns {quoted(table.columns)} holds "
            f"timestamps (first cells: {first}); add one such as 2020-12-31 23:00:00, or name it "
            "with --data.time_column"
        )
    if len(found) > 1:
        names = [table.columns[column] for column in found]
        raise DataError(
            f"{table.label}: columns {quoted(names)} all hold timestamps; say which is the time "
            f"with --data.time_column {names[0]}; the others are no channels: remove them, or name "
            "what is to be forecast with --data.targets"
        )
    header = table.columns[found[0]]
    first_line = pd.Series([header])
    if header and (looks_like_time(first_line, digits_count=False) or holds_months(first_line)):
        raise DataError(
            f"{table.label}: no header: the first line begins with {header!r}, which is data; put "
            "a line of column names first"
        )
    return found[0]


def _holds_time(table: Table, column: int) -> bool:
    cells = table.cells(column)
    if pd.api.types.is_datetime64_any_dtype(cells):
        return True
    known = table.lowered[column] in TIME_NAMES
    if pd.api.types.is_numeric_dtype(cells) and not known:
        return False
    return looks_like_time(table.text(column, _SAMPLE), digits_count=known)


def _holds_months(table: Table, column: int) -> bool:
    if pd.api.types.is_numeric_dtype(table.cells(column)):
        return False
    return holds_months(table.text(column, _SAMPLE)) and holds_months(table.text(column))


def _parsed_times(
    table: Table,
    column: int,
    text: pd.Series,
    reading: Reading,
    groups: Sequence[np.ndarray] | None,
) -> ParsedTimes:
    label = f"{table.label}, column {table.columns[column]!r}"
    parsed = parse_times(text, day_first=reading.day_first, label=label, groups=groups)
    if parsed.unread:
        examples = ", ".join(repr(text.iloc[row]) for row in parsed.unread[:_SHOWN])
        digits = text.iloc[parsed.unread[0]].isdigit()
        raise DataError(
            f"{label}: no timestamp in {table.where(parsed.unread)}: {examples}; "
            + ("numbers are not taken for dates; " if digits else "")
            + "expected dates such as 2020-12-31 or 2020-12-31 23:00:00"
        )
    return parsed


def table_times(
    table: Table,
    column: int,
    reading: Reading,
    groups: Sequence[np.ndarray] | None,
    treatment: Treatment,
    *,
    counted: bool = False,
) -> tuple[Table, pd.DatetimeIndex, tuple[str, ...]]:
    """Return the timestamps of a column in the zone that was named, and notes on them.

    Timestamps of a frame are taken as they are, with their time zone. The table comes back marked
    where its time column counts steps (`tsattn.data.integers`).

    Args:
        table: Header and cells.
        column: Position of the time column.
        reading: What the user has said about the dates.
        groups: Rows of every series, where several share the column.
        treatment: The policy.
        counted: Whether such data are known to count steps, so that 2000 is no year.

    Raises:
        DataError: A cell is no timestamp, the order of day and month cannot be told, or a time does
            not exist in the zone.
    """
    cells = table.cells(column)
    if pd.api.types.is_datetime64_any_dtype(cells) and not cells.isna().any():
        times, notes = pd.DatetimeIndex(cells).as_unit("us"), ()
    else:
        text = table.text(column)
        if (reading.day_first is None or counted) and holds_integers(text, known=counted):
            table = replace(table, integers=True)
            return table, from_integers(text), ("time: counted steps, no calendar",)
        parsed = _parsed_times(table, column, text, reading, groups)
        times, notes = parsed.times, parsed.notes
        if parsed.offset is not None:
            table = replace(table, offset=parsed.offset)
        if treatment.time_zone is not None and parsed.offset is not None:
            times = (times - parsed.offset).tz_localize("UTC")
        elif OFFSETS_DIFFER in notes:
            notes += (_NAME_THE_ZONE,)
    whole = [np.arange(len(times))] if groups is None else list(groups)
    times, more = in_zone(table, times, whole, treatment.time_zone)
    return table, times, (*notes, *more)
