"""The last rows of every series of a source, matched by name with what a network was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.identities import identities_of
from tsattn.data.numerals import channel_values
from tsattn.data.own import LONG_COLUMNS, column_times, find_time_column
from tsattn.data.table import Table
from tsattn.errors import DataError
from tsattn.forecast.evenness import require_step
from tsattn.forecast.matching import match
from tsattn.forecast.sources import Source
from tsattn.forecast.trained import Trained


@dataclass(frozen=True, eq=False)
class History:
    """The last rows of every name, a channel of a wide source or a series of a long one.

    Attributes:
        source: where they come from.
        labels: what the source calls the names: column labels, or values of ``unique_id``.
        names: the same as text.
        known: per name its place among those trained on, or None.
        values_KN: float64 in original units, names x rows.
        rows_KN: position of every row in the table.
        times: timestamps of all rows of the table.
        whole: all rows of every name, where new series need their scale from them; else empty.
        time_label: what the source calls its time column.
        notes: what was recognised.
    """

    source: Source
    labels: tuple[Any, ...]
    names: tuple[str, ...]
    known: tuple[int | None, ...]
    values_KN: np.ndarray
    rows_KN: np.ndarray
    times: pd.DatetimeIndex
    whole: tuple[np.ndarray, ...]
    time_label: Any
    notes: tuple[str, ...]

    def same_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows [U, N] of the distinct sequences of times, and which of them each name has.

        Names that share their timestamps, as all those of a wide source do, share the calendar.
        """
        moments_KN = self.times.asi8[self.rows_KN]
        if len(moments_KN) == 1 or (moments_KN == moments_KN[0]).all():
            return self.rows_KN[:1], np.zeros(len(moments_KN), dtype=np.int64)
        _, first_U, which_K = np.unique(moments_KN, axis=0, return_index=True, return_inverse=True)
        return self.rows_KN[first_U], which_K.reshape(-1)

    def require_same_times(self) -> None:
        """Refuse names that do not end at the same time, where a network sees them together.

        Raises:
            DataError: with two names and their last timestamps.
        """
        rows_UN, which_K = self.same_times()
        if len(rows_UN) > 1:
            other = int((which_K != which_K[0]).argmax())
            first, second = (
                f"{self.names[place]!r} at {self.times[self.rows_KN[place, -1]]}"
                for place in (0, other)
            )
            raise DataError(
                f"{self.source.table.label}: the network sees all channels together, but they end "
                f"at different times: {first}, {second}; bring rows up to the same time"
            )


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
    table = source.table
    time = time_column_of(source, trained)
    beside = {place for place, name in enumerate(table.columns) if name in trained.beside}
    columns = [column for column in range(len(table.columns)) if column not in beside | {time}]
    unnamed = [column + 1 for column in columns if not table.columns[column]]
    if unnamed:
        raise DataError(
            f"{table.label}: column {unnamed[0]} has no name; name it, or remove it if it only "
            "counts the rows"
        )
    names = tuple(table.columns[column] for column in columns)
    known = match(names, trained, table.label, new_series=new_series)
    times, notes = times_of(source, time, None)
    order = np.argsort(times.asi8, kind="stable") if sort else np.arange(len(times))
    _require_rows([order], (table.label,), rows, needed)
    tail = order[-rows:]
    require_step(table, times, tail[np.newaxis], ("",), trained.step)
    values_RC, more = channel_values(
        table, columns, source.reading.decimal, None if new_series else tail
    )
    return History(
        source=source,
        labels=tuple(source.labels[column] for column in columns),
        names=names,
        known=known,
        values_KN=values_RC[tail].T,
        rows_KN=np.broadcast_to(tail, (len(columns), rows)),
        times=times,
        whole=tuple(values_RC.T) if new_series else (),
        time_label=_label(source, time),
        notes=(*table.notes, *notes, *more),
    )


def _long(
    source: Source, trained: Trained, rows: int, new_series: bool, sort: bool, needed: str
) -> History:
    table = source.table
    identity, time, target = long_columns(table)
    identities = identities_of(table, identity)
    names, groups = identities.names, identities.groups
    known = match(names, trained, table.label, new_series=new_series)
    times, notes = times_of(source, time, groups)
    if sort:
        groups = [group[np.argsort(times.asi8[group], kind="stable")] for group in groups]
    places = tuple(f"{table.label}, series {name!r}" for name in names)
    _require_rows(groups, places, rows, needed)
    rows_KN = np.stack([group[-rows:] for group in groups])
    suffixes = tuple(f", series {name!r}" for name in names)
    require_step(table, times, rows_KN, suffixes, trained.step)
    values_R1, more = channel_values(
        table, [target], source.reading.decimal, None if new_series else rows_KN.reshape(-1)
    )
    return History(
        source=source,
        labels=identities.labels,
        names=names,
        known=known,
        values_KN=values_R1[:, 0][rows_KN],
        rows_KN=rows_KN,
        times=times,
        whole=tuple(values_R1[group, 0] for group in groups) if new_series else (),
        time_label=_label(source, time),
        notes=(*table.notes, *notes, *more),
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
    source: Source, column: int, groups: Sequence[np.ndarray] | None
) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Return the timestamps; those of a frame are taken as they are, with their time zone."""
    cells = source.table.cells(column)
    if pd.api.types.is_datetime64_any_dtype(cells) and not cells.isna().any():
        return pd.DatetimeIndex(cells).as_unit("us"), ()
    return column_times(source.table, column, source.reading, groups)


def _require_rows(
    groups: Sequence[np.ndarray], places: Sequence[str], rows: int, needed: str
) -> None:
    short = [
        f"{place} has {len(group)} rows"
        for place, group in zip(places, groups, strict=True)
        if len(group) < rows
    ]
    if short:
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        raise DataError(
            f"{'; '.join(short[:5])}{more}, but {rows} are needed ({needed}); bring more rows"
        )
