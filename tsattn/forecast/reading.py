"""From a source to its last rows, matched by name with what a network was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timezone
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.frames import LONG_COLUMNS
from tsattn.data.identities import identities_of
from tsattn.data.numerals import channel_values
from tsattn.data.offsets import OFFSETS_DIFFER
from tsattn.data.selecting import require_wide, select_columns
from tsattn.data.table import Table
from tsattn.data.timecolumn import find_time_column, table_times
from tsattn.data.treatment import Treated, Treatment
from tsattn.errors import DataError
from tsattn.forecast.history import History
from tsattn.forecast.matching import match
from tsattn.forecast.sources import Source
from tsattn.forecast.tails import Tails, last_rows
from tsattn.forecast.trained import Trained


def read_history(
    source: Source,
    trained: Trained,
    rows: int,
    *,
    new_series: bool = False,
    sort: bool = False,
    needed: str,
) -> History:
    """Take the last rows of every channel or series.

    Only these rows have to be whole, even and finite (with ``new_series`` all numbers have to be
    finite); what lies before them does not matter.

    Args:
        source: new data.
        trained: what the network was trained on.
        rows: how many rows of each name.
        new_series: whether names that were not trained on are welcome, and trained ones may lack.
        sort: order the rows of each series by time first.
        needed: what the rows are for, for messages.

    Raises:
        DataError: names that do not match, too few rows, rows that are missing, out of order or at
            another step, or cells without a finite number.
    """
    read = _wide if source.layout == "wide" else _long
    return read(source, trained, rows, new_series, sort, needed)


def _wide(
    source: Source, trained: Trained, rows: int, new_series: bool, sort: bool, needed: str
) -> History:
    time = time_column_of(source, trained)
    columns, left = channel_columns(source, trained, time, new_series=new_series)
    unnamed = [column + 1 for column in columns if not source.table.columns[column]]
    if unnamed:
        raise DataError(
            f"{source.table.label}: column {unnamed[0]} has no name; name it, or remove it if it "
            "only counts the rows, or name what is to be forecast with --data.targets"
        )
    names = tuple(source.table.columns[column] for column in columns)
    known = match(names, trained, source.table.label, new_series=new_series, columns=True)
    treatment = Treatment.of(source.reading, trained.treatment)
    source, times, notes = times_of(source, time, None, trained)
    order = np.argsort(times.asi8, kind="stable") if sort else np.arange(len(times))
    tails = last_rows(source.table, times, [order], ("",), rows, trained.step, treatment, needed)
    values_RC, more = _values(source, columns, tails, treatment, new_series=new_series)
    more += left
    whole = tuple(tails.merged[0].values(values_RC).T) if new_series else ()
    return _history(
        source, treatment, tails, notes + more,
        labels=tuple(source.labels[column] for column in columns),
        names=names,
        known=known,
        values_KN=tails.values(0, values_RC).T,
        rows_KN=np.broadcast_to(tails.rows_SN[0], (len(columns), rows)),
        whole=whole,
        time_label=_label(source, time),
    )  # fmt: skip


def _long(
    source: Source, trained: Trained, rows: int, new_series: bool, sort: bool, needed: str
) -> History:
    require_wide(source.reading, source.table.label)
    identity, time, target = long_columns(source.table)
    identities = identities_of(source.table, identity)
    names, groups = identities.names, identities.groups
    known = match(names, trained, source.table.label, new_series=new_series)
    treatment = Treatment.of(source.reading, trained.treatment)
    source, times, notes = times_of(source, time, groups, trained)
    if sort:
        groups = [group[np.argsort(times.asi8[group], kind="stable")] for group in groups]
    suffixes = tuple(f", series {name!r}" for name in names)
    tails = last_rows(source.table, times, groups, suffixes, rows, trained.step, treatment, needed)
    values_R1, more = _values(source, [target], tails, treatment, new_series=new_series)
    whole = tuple(one.values(values_R1)[:, 0] for one in tails.merged) if new_series else ()
    return _history(
        source, treatment, tails, notes + more,
        labels=identities.labels,
        names=names,
        known=known,
        values_KN=_of_series(tails, values_R1),
        rows_KN=tails.rows_SN,
        whole=whole,
        time_label=_label(source, time),
    )  # fmt: skip


def _of_series(tails: Tails, values_R1: np.ndarray) -> np.ndarray:
    if not tails.num_inserted and not any(one.num_merged for one in tails.merged):
        return values_R1[:, 0][tails.rows_SN]
    return np.stack([tails.values(place, values_R1)[:, 0] for place in range(len(tails.rows_SN))])


def _values(
    source: Source, columns: Sequence[int], tails: Tails, treatment: Treatment, *, new_series: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the values of all rows, sound in those that are needed."""
    return channel_values(
        source.table,
        columns,
        source.reading.decimal,
        None if new_series else tails.needed,
        allow_missing=treatment.takes_missing,
    )


def _history(
    source: Source,
    treatment: Treatment,
    tails: Tails,
    notes: tuple[str, ...],
    *,
    whole: tuple[np.ndarray, ...],
    **parts: Any,
) -> History:
    values_KN, names = parts["values_KN"], parts["names"]
    for name, own in zip(names, whole, strict=False):
        if np.isnan(own).all():
            raise DataError(
                f"{source.table.label}: no value at all of {name!r}, so nothing says how to "
                "standardise it; remove it"
            )
    treated = Treated(
        missing=int(np.isnan(values_KN).sum()),
        values=values_KN.size,
        merged=tails.num_merged,
        inserted=tails.num_inserted,
    )
    return History(
        source=source,
        times=tails.times,
        tails=tails,
        whole=whole,
        notes=(*source.table.notes, *notes, *treated.notes(treatment)),
        treatment=treatment,
        **parts,
    )


def _label(source: Source, column: int) -> Any:
    label = source.labels[column]
    return "date" if isinstance(label, str) and not label else label


def time_column_of(source: Source, trained: Trained) -> int:
    """Return the position of the time column: the one that was asked for, trained on, or found."""
    columns, given = source.table.columns, source.reading.time_column
    if source.index:
        return 0
    known = trained.time_column in columns and trained.time_column not in trained.names
    if given is None and known:
        given = trained.time_column
    return find_time_column(source.table, given)


def channel_columns(
    source: Source, trained: Trained, time: int, *, new_series: bool
) -> tuple[list[int], tuple[str, ...]]:
    """Return the positions of the columns of a wide source to forecast, and a note on the others.

    They are those that were asked for, that the training named, or all but time and covariates.

    Args:
        source: new data.
        trained: what the network was trained on.
        time: position of the time column.
        new_series: whether names that were not trained on are welcome.

    Raises:
        DataError: a column that was asked for is not there.
    """
    names = source.table.columns
    columns = [
        place for place, name in enumerate(names) if place != time and name not in trained.beside
    ]
    reading = replace(source.reading, covariates=())
    if trained.targets_chosen and not new_series and not reading.targets:
        # those that lack are named when names are matched
        there = tuple(name for name in trained.names if name in names)
        reading = replace(reading, targets=there)
    selected = select_columns(names, columns, reading, source.table.label)
    if reading.targets and trained.layout == "wide" and not new_series:
        _require_all(reading.targets, trained, source)
    return selected


def _require_all(targets: Sequence[str], trained: Trained, source: Source) -> None:
    """Refuse to choose some of the channels that a network sees together."""
    left = [name for name in trained.names if name not in targets and name in source.table.columns]
    if left:
        raise DataError(
            f"{source.table.label}: the network forecasts {', '.join(trained.names)} together, so "
            f"the targets (--targets) have to name {', '.join(left)} too; leave other columns out "
            "of the forecast afterwards"
        )


def long_columns(table: Table) -> tuple[int, int, int]:
    """Return the positions of unique_id, ds and y.

    Raises:
        DataError: one of them is missing.
    """
    places = {name: place for place, name in enumerate(table.lowered)}
    missing = [name for name in LONG_COLUMNS if name not in places]
    if missing:
        raise DataError(
            f"{table.label}: the long layout needs the columns unique_id, ds, y; "
            f"{', '.join(missing)} missing among {', '.join(table.columns)}"
        )
    identity, time, target = (places[name] for name in LONG_COLUMNS)
    return identity, time, target


def times_of(
    source: Source, column: int, groups: Sequence[np.ndarray] | None, trained: Trained
) -> tuple[Source, pd.DatetimeIndex, tuple[str, ...]]:
    """Return the timestamps by the clock of the training; the source knows how it writes them.

    It is that of the zone in the policy, or the one that timestamps of the training named; where
    they named none, timestamps stay as they are.

    Args:
        source: new data.
        column: position of the time column.
        groups: rows of every series, where several share the column.
        trained: what the network was trained on.

    Raises:
        DataError: cells that are no timestamps, or counted steps where there were none.
    """
    treatment = Treatment.of(source.reading, trained.treatment)
    table, times, notes = table_times(
        source.table, column, source.reading, groups, treatment, counted=trained.integers
    )
    if table.integers != trained.integers:
        counted, stamps = "counted steps", "timestamps"
        here, there = (counted, stamps) if table.integers else (stamps, counted)
        raise DataError(
            f"{table.label}, column {table.columns[column]!r}: {here}, but the network was trained "
            f"on {there}; expected {there} such as "
            + ("7588" if trained.integers else "2020-12-31 23:00:00")
        )
    cells = table.cells(column)
    zone = cells.dt.tz if pd.api.types.is_datetime64_any_dtype(cells) else None
    if table.offset is not None:
        zone = timezone(table.offset.to_pytimedelta())
        if times.tz is None:
            times = times.tz_localize(zone)
        elif OFFSETS_DIFFER in notes:  # as those of a place do
            zone = times.tz
    if times.tz is not None and treatment.time_zone is None and trained.clock is not None:
        times = times.tz_convert(trained.clock)  # its calendar, and its days
    return replace(source, table=table, zone=zone), times, notes
