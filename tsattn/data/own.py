"""A user's own file or frame: recognise its layout and its time column, and check every row."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed, plural
from tsattn.data.frames import LONG_COLUMNS, plain_frame
from tsattn.data.identities import identities_of
from tsattn.data.mending import Mended, mend
from tsattn.data.numerals import covariate_values, with_flags
from tsattn.data.panel import Panel, Series
from tsattn.data.reading import Reading
from tsattn.data.selecting import require_wide, select_columns
from tsattn.data.steps import mean_step_seconds
from tsattn.data.table import Table, check_names
from tsattn.data.timecolumn import find_time_column, table_times
from tsattn.data.treatment import Treatment
from tsattn.data.zones import clock_of, goes_by_utc
from tsattn.errors import DataError


def read_own_frame(frame: pd.DataFrame, reading: Reading) -> Panel:
    """Turn a data frame into a panel; messages count its rows from 0.

    Raises:
        DataError: The frame cannot be used; with rows, columns and what to do.
    """
    table = frame_table(frame)
    return read_own_table(
        table, reading, name="frame", path=Path("<frame>"), sha256=frame_sha256(table)
    )


def frame_sha256(table: Table) -> str:
    """Return a hash of the names and cells of a frame."""
    digest = hashlib.sha256("\n".join(table.columns).encode())
    digest.update(pd.util.hash_pandas_object(table.frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def frame_table(frame: pd.DataFrame) -> Table:
    """Take a data frame for a table, an index of timestamps for its first column.

    Raises:
        DataError: Several header rows, a name that comes twice, no rows, or an index and a column
            that both hold the time, and differ.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError("the frame has several header rows; expected one name per column")
    frame, _ = plain_frame(frame)
    names = tuple(str(name).strip() for name in frame.columns)
    check_names(names, "the frame")
    if not len(frame):
        raise DataError("the frame has no rows; expected a time column, channels and rows")
    cells = frame.set_axis(range(len(names)), axis=1)
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
    treatment = Treatment.of(reading)
    read = _read_long if layout == "long" else _read_wide
    found = read(table, reading, treatment, name)
    mended, step = found.mended, found.mended.step
    series = tuple(map(Series, found.ids, mended.times, mended.values))
    recognised = (f"layout: {layout}", f"time column: {found.time_column!r}", *found.notes)
    longest = max(series, key=lambda one: one.num_rows)
    return Panel(
        name=name,
        path=path,
        sha256=sha256,
        channels=found.channels,
        series=series,
        step=step,
        step_seconds=(
            step.total_seconds()
            if isinstance(step, pd.Timedelta)
            else mean_step_seconds(longest.times)
        ),
        layout=layout,
        time_column=found.time_column,
        notes=(
            *table.notes,
            *recognised,
            *mended.notes,
            f"step: {found.table.apart(step)}",
            *mended.treated.notes(treatment),
            *_constant_notes(series, found.channels),
        ),
        treatment=treatment,
        treated=mended.treated,
        integers=found.table.integers,
        clock=clock_of(longest.times, found.table.offset),
        by_utc=goes_by_utc(mended.times, step),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What a layout makes of a table."""

    table: Table
    ids: tuple[str, ...]
    channels: tuple[str, ...]
    time_column: str
    mended: Mended
    notes: tuple[str, ...]


def _read_wide(table: Table, reading: Reading, treatment: Treatment, name: str) -> _Found:
    time = find_time_column(table, reading.time_column)
    columns = [column for column in range(len(table.columns)) if column != time]
    columns, left = select_columns(table.columns, columns, reading, table.label)
    unnamed = [column + 1 for column in columns if not table.columns[column]]
    if unnamed:
        raise DataError(
            f"{table.label}: column {unnamed[0]} has no name; name it, or remove it if it only "
            "counts the rows, or name what is to be forecast with --data.targets"
        )
    table, times, notes = table_times(table, time, reading, None, treatment)
    groups = [np.arange(len(times))]
    mended = mend(table, times, groups, None, columns, reading.decimal, treatment)
    channels = tuple(table.columns[column] for column in columns)
    return _Found(table, (name,), channels, table.columns[time] or "date", mended, notes + left)


def _read_long(table: Table, reading: Reading, treatment: Treatment, name: str) -> _Found:
    del name  # every series has its own
    require_wide(reading, table.label)
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
    identities = identities_of(table, identity)
    names, groups = identities.names, identities.groups
    table, times, notes = table_times(table, time, reading, groups, treatment)
    places = {place: one for place, one in enumerate(table.columns) if one in reading.covariates}
    columns = [target, *(place for place in places if place not in (identity, time, target))]
    mended = mend(table, times, groups, names, columns, reading.decimal, treatment)
    used = {identity, time, *columns}
    extra = [one for place, one in enumerate(table.columns) if place not in used]
    if extra:
        notes += (f"columns not used: {', '.join(extra)}",)
    channels = tuple(table.columns[column] for column in columns)
    return _Found(table, names, channels, table.columns[time], mended, notes)


def spread(values_RC: np.ndarray) -> np.ndarray:
    """Return the range of every channel's values, missing ones left out; NaN where all are."""
    if not np.isnan(values_RC).any():
        return np.ptp(values_RC, axis=0)
    frame = pd.DataFrame(values_RC)
    return (frame.max() - frame.min()).to_numpy(np.float64)


def _constant_notes(series: Sequence[Series], channels: Sequence[str]) -> tuple[str, ...]:
    constant: list[str] = []
    for one in series:
        for place in np.flatnonzero(spread(one.values_RC) == 0):
            constant.append(one.id if len(series) > 1 else channels[int(place)])
    if not constant:
        return ()
    kind = plural(len(constant), "series" if len(series) > 1 else "channel")
    return (f"constant {kind}, standardised with scale 1: {listed(constant, repr)}",)
