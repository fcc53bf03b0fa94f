"""A user's own file or frame: recognise its layout and its time column, and check every row."""

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tsattn.data.numerals import channel_values, covariate_values, with_flags
from tsattn.data.panel import Panel, Series, Step
from tsattn.data.reading import Reading
from tsattn.data.regularity import common_step, regular_step
from tsattn.data.steps import mean_step_seconds, step_text
from tsattn.data.table import Table, check_names
from tsattn.data.timestamps import looks_like_time, parse_times
from tsattn.errors import DataError

LONG_COLUMNS = ("unique_id", "ds", "y")
TIME_NAMES = ("date", "datetime", "date_time", "timestamp", "time", "ds", "")
_SAMPLE = 50
_SHOWN = 5


def read_own_frame(frame: pd.DataFrame, reading: Reading) -> Panel:
    """Turn a data frame into a panel; messages count its rows from 0.

    Raises:
        DataError: The frame cannot be used; with rows, columns and what to do.
    """
    table = frame_table(frame)
    digest = hashlib.sha256("\n".join(table.columns).encode())
    digest.update(pd.util.hash_pandas_object(table.frame, index=False).to_numpy().tobytes())
    return read_own_table(
        table, reading, name="frame", path=Path("<frame>"), sha256=digest.hexdigest()
    )


def frame_table(frame: pd.DataFrame) -> Table:
    """Take a data frame for a table, an index of timestamps for its first column.

    Raises:
        DataError: Several header rows, a name that comes twice, or no rows.
    """
    if isinstance(frame.index, (pd.DatetimeIndex, pd.PeriodIndex)):
        frame = frame.rename_axis(str(frame.index.name or "date")).reset_index()
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError("the frame has several header rows; expected one name per column")
    names = tuple(str(name).strip() for name in frame.columns)
    check_names(names, "the frame")
    if not len(frame):
        raise DataError("the frame has no rows; expected a time column, channels and rows")
    cells = frame.set_axis(range(len(names)), axis=1).reset_index(drop=True)
    for column, dtype in enumerate(cells.dtypes):
        if isinstance(dtype, pd.PeriodDtype):
            cells[column] = cells[column].dt.start_time
    return Table("the frame", names, cells, np.arange(len(cells)), unit="row")


def read_own_table(table: Table, reading: Reading, *, name: str, path: Path, sha256: str) -> Panel:
    """Turn a table into a panel.

    Args:
        table: Header and cells.
        reading: What the user has said about them.
        name: Name of the data.
        path: Where it comes from.
        sha256: Hash of its bytes.

    Raises:
        DataError: The table cannot be used; with lines, columns and what to do.
    """
    layout = reading.layout or ("long" if set(LONG_COLUMNS) <= set(table.lowered) else "wide")
    if reading.covariates:
        table = with_flags(table, reading.covariates)
        places = [place for place, one in enumerate(table.columns) if one in reading.covariates]
        covariate_values(table, places, reading.decimal)
    read = _read_long if layout == "long" else _read_wide
    series, channels, time_column, step, notes = read(table, reading, name)
    notes = (*table.notes, f"layout: {layout}", f"time column: {time_column!r}", *notes)
    notes += (f"step: {step_text(step)}", *_constant_notes(series, channels))
    longest = max(series, key=lambda one: one.num_rows)
    return Panel(
        name=name,
        path=path,
        sha256=sha256,
        channels=channels,
        series=series,
        step=step,
        step_seconds=(
            step.total_seconds()
            if isinstance(step, pd.Timedelta)
            else mean_step_seconds(longest.times)
        ),
        layout=layout,
        time_column=time_column,
        notes=notes,
    )


Read = tuple[tuple[Series, ...], tuple[str, ...], str, Step, tuple[str, ...]]


def _read_wide(table: Table, reading: Reading, name: str) -> Read:
    time = find_time_column(table, reading.time_column)
    time_name = table.columns[time] or "date"
    columns = [column for column in range(len(table.columns)) if column != time]
    unnamed = [column + 1 for column in columns if not table.columns[column]]
    if unnamed:
        raise DataError(
            f"{table.label}: column {unnamed[0]} has no name; name it, or remove it if it only "
            "counts the rows"
        )
    times, notes = column_times(table, time, reading, None)
    step = regular_step(table, times, np.arange(len(times)), "")
    values_RC, value_notes = channel_values(table, columns, reading.decimal)
    channels = tuple(table.columns[column] for column in columns)
    return (Series(name, times, values_RC),), channels, time_name, step, notes + value_notes


def _read_long(table: Table, reading: Reading, name: str) -> Read:
    del name  # every series has its own
    places = {wanted: place for place, wanted in enumerate(table.lowered)}
    missing = [wanted for wanted in LONG_COLUMNS if wanted not in places]
    if missing:
        raise DataError(
            f"{table.label}: the long layout needs the columns unique_id, ds, y; "
            f"{', '.join(missing)} missing among {', '.join(table.columns)}; rename the columns, "
            "or use --data.layout wide"
        )
    identity, time, target = (places[wanted] for wanted in LONG_COLUMNS)
    if reading.time_column is not None and reading.time_column.casefold() != "ds":
        raise DataError(
            f"the time column of the long layout is ds, not {reading.time_column!r}; rename the "
            "column"
        )
    identities = table.text(identity)
    nameless = np.flatnonzero((identities == "").to_numpy())
    if len(nameless):
        raise DataError(f"{table.label}: unique_id is empty in {table.where(nameless)}; fill it")
    codes, names = pd.factorize(identities)
    groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    times, notes = column_times(table, time, reading, groups)
    step = common_step(table, times, groups, [str(one) for one in names])
    places = {place: one for place, one in enumerate(table.columns) if one in reading.covariates}
    columns = [target, *(place for place in places if place not in (identity, time, target))]
    values_RC, value_notes = channel_values(table, columns, reading.decimal)
    series = tuple(
        Series(str(one), times[rows], values_RC[rows])
        for one, rows in zip(names, groups, strict=True)
    )
    used = {identity, time, *columns}
    extra = [one for place, one in enumerate(table.columns) if place not in used]
    if extra:
        notes += (f"columns not used: {', '.join(extra)}",)
    channels = tuple(table.columns[column] for column in columns)
    return series, channels, table.columns[time], step, notes + value_notes


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
            f"{_listed(table.columns)}"
        )
    found = [column for column in range(len(table.columns)) if _holds_time(table, column)]
    if not found:
        named = [place for place, name in enumerate(table.lowered) if name and name in TIME_NAMES]
        found = named[:1]
    if not found:
        first = ", ".join(
            f"{name!r} {table.text(column, 1).iloc[0]!r}"
            for column, name in enumerate(table.columns[:_SHOWN])
        )
        raise DataError(
            f"{table.label}: no time column: none of the columns {_listed(table.columns)} holds "
            f"timestamps (first cells: {first}); add one such as 2020-12-31 23:00:00, or name it "
            "with --data.time_column"
        )
    if len(found) > 1:
        names = [table.columns[column] for column in found]
        raise DataError(
            f"{table.label}: columns {_listed(names)} all hold timestamps; say which is the time "
            f"with --data.time_column {names[0]} and remove the others"
        )
    header = table.columns[found[0]]
    if header and looks_like_time(pd.Series([header]), digits_count=False):
        raise DataError(
            f"{table.label}: no header: the first line begins with {header!r}, which is data; put "
            "a line of column names first"
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more


def _holds_time(table: Table, column: int) -> bool:
    cells = table.cells(column)
    if pd.api.types.is_datetime64_any_dtype(cells):
        return True
    known = table.lowered[column] in TIME_NAMES
    if pd.api.types.is_numeric_dtype(cells) and not known:
        return False
    return looks_like_time(table.text(column, _SAMPLE), digits_count=known)


def column_times(
    table: Table, column: int, reading: Reading, groups: Sequence[np.ndarray] | None
) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Return the timestamps of a column, and notes on what was recognised.

    Args:
        table: Header and cells.
        column: Position of the time column.
        reading: What the user has said about the dates.
        groups: Rows of every series, where several share the column.

    Raises:
        DataError: A cell is no timestamp, or the order of day and month cannot be told.
    """
    label = f"{table.label}, column {table.columns[column]!r}"
    text = table.text(column)
    parsed = parse_times(text, day_first=reading.day_first, label=label, groups=groups)
    if parsed.unread:
        examples = ", ".join(repr(text.iloc[row]) for row in parsed.unread[:_SHOWN])
        digits = text.iloc[parsed.unread[0]].isdigit()
        raise DataError(
            f"{label}: no timestamp in {table.where(parsed.unread)}: {examples}; "
            + ("numbers are not taken for dates; " if digits else "")
            + "expected dates such as 2020-12-31 or 2020-12-31 23:00:00"
        )
    return parsed.times, parsed.notes


def _constant_notes(series: Sequence[Series], channels: Sequence[str]) -> tuple[str, ...]:
    constant: list[str] = []
    for one in series:
        for place in np.flatnonzero(np.ptp(one.values_RC, axis=0) == 0):
            constant.append(repr(one.id) if len(series) > 1 else repr(channels[int(place)]))
    if not constant:
        return ()
    more = f" and {len(constant) - _SHOWN} more" if len(constant) > _SHOWN else ""
    kind = "series" if len(series) > 1 else "channel(s)"
    return (f"constant {kind}, standardised with scale 1: {', '.join(constant[:_SHOWN])}{more}",)
