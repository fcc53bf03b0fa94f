"""The last rows of every series of a table, at the step of the training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed
from tsattn.data.grid import Merged, merge, num_missing
from tsattn.data.panel import Step
from tsattn.data.regularity import irregular
from tsattn.data.table import Table
from tsattn.data.treatment import Treatment
from tsattn.data.zones import clocks, from_clock
from tsattn.errors import DataError
from tsattn.forecast.evenness import require_step


@dataclass(frozen=True, eq=False)
class Tails:
    """The last rows of every series.

    Attributes:
        times: timestamps of all rows of the table, those of inserted rows behind them.
        rows_SN: of every series and row the place in ``times``.
        merged: rows of every series, those with the same timestamp put together.
        places_SN: of every series and row the place among ``merged.firsts``, -1 for an inserted
            one.
    """

    times: pd.DatetimeIndex
    rows_SN: np.ndarray
    merged: tuple[Merged, ...]
    places_SN: np.ndarray

    @property
    def needed(self) -> np.ndarray:
        """Rows of the table whose values are looked at."""
        if not self.num_inserted and not any(one.num_merged for one in self.merged):
            return self.rows_SN.reshape(-1)
        parts = [
            one.rows[one.places >= places[places >= 0].min()]
            for one, places in zip(self.merged, self.places_SN, strict=True)
        ]
        return np.unique(np.concatenate(parts))

    @property
    def num_inserted(self) -> int:
        """Number of rows that were inserted."""
        return int((self.places_SN < 0).sum())

    @property
    def num_merged(self) -> int:
        """Number of rows that were looked at and merged into another one."""
        return len(self.needed) - int((self.places_SN >= 0).sum())

    def values(self, series: int, values_RC: np.ndarray) -> np.ndarray:
        """Return the values of one series' last rows, NaN for inserted ones.

        Args:
            series: which series.
            values_RC: values of all rows of the table.
        """
        own_NC = self.merged[series].values(values_RC)
        places = self.places_SN[series]
        found_NC = own_NC[places]
        found_NC[places < 0] = np.nan
        return found_NC


def last_rows(
    table: Table,
    times: pd.DatetimeIndex,
    groups: Sequence[np.ndarray],
    suffixes: Sequence[str],
    rows: int,
    step: Step,
    treatment: Treatment,
    needed: str,
) -> Tails:
    """Take the last rows of every series, and mend them as far as the policy allows.

    Args:
        table: where the rows come from.
        times: timestamps of all its rows.
        groups: rows of every series.
        suffixes: what messages append to the table's label, per series.
        rows: how many rows of each.
        step: the step of the training.
        treatment: what may be done.
        needed: what the rows are for, for messages.

    Raises:
        DataError: too few rows, or rows that are not at the step.
    """
    merged = tuple(
        merge(table, times, group, suffix, treatment.duplicates)
        for group, suffix in zip(groups, suffixes, strict=True)
    )
    firsts = [one.firsts for one in merged]
    if treatment.gaps == "error":
        _require_rows([len(one) for one in firsts], table.label, suffixes, rows, needed)
        rows_SN = np.stack([one[-rows:] for one in firsts])
        require_step(table, times, rows_SN, suffixes, step)
        ends = np.array([len(one) for one in firsts])[:, np.newaxis]
        return Tails(times, rows_SN, merged, ends - rows + np.arange(rows))
    tails = [
        _grid_tail(table, times, one, suffix, rows, step)
        for one, suffix in zip(firsts, suffixes, strict=True)
    ]
    reach = [len(grid) for grid, _ in tails]
    _require_rows(reach, table.label, suffixes, rows, needed)
    rows_SN = np.empty((len(tails), rows), dtype=np.int64)
    inserted = [grid[places < 0] for grid, places in tails]
    begin = len(times)
    for index, (_, places) in enumerate(tails):
        lacking = places < 0
        rows_SN[index] = firsts[index][places]
        rows_SN[index, lacking] = begin + np.arange(lacking.sum())
        begin += int(lacking.sum())
    every = times.append(inserted) if inserted else times
    return Tails(
        pd.DatetimeIndex(every), rows_SN, merged, np.stack([places for _, places in tails])
    )


def _grid_tail(
    table: Table, times: pd.DatetimeIndex, rows: np.ndarray, suffix: str, length: int, step: Step
) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Return the timestamps of a series' last rows at the step, and each one's place among rows.

    They are fewer than asked for where the series does not reach back so far.
    """
    own = times[rows]
    off: np.ndarray | None = None
    for clock, moments in _likeliest(clocks(own), step):
        try:
            grid = pd.date_range(end=moments[-1], periods=length, freq=step, unit="us")
        except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
            raise DataError(
                f"{table.label}{suffix}: no time before {table.stamp(own[-1])} for {length} rows: "
                f"{error}"
            ) from None
        grid = grid[grid >= moments.min()]
        inside = np.flatnonzero(moments >= grid[0]) if len(grid) else np.arange(len(moments))
        tail = moments[inside]
        if (np.diff(tail.asi8) <= 0).any() or not (np.diff(inside) == 1).all():
            raise irregular(table, own, rows, suffix)
        found = grid.get_indexer(tail)
        if len(grid) and (found >= 0).all():
            places = np.full(len(grid), -1)
            places[found] = inside
            return from_clock(grid, own, clock), places
        off = inside[found < 0] if off is None else off
    assert off is not None
    examples = ", ".join(table.stamp(own[row]) for row in off[:5])
    raise DataError(
        f"{table.label}{suffix}: not on the grid of {table.apart(step)} that ends with "
        f"{table.stamp(own[-1])}: {table.where(rows[off])} ({examples}); gaps can be filled, but "
        "no row moved: correct the timestamps or resample to the step of the training"
    )


def _likeliest(
    moments: tuple[pd.DatetimeIndex, ...], step: Step
) -> list[tuple[int, pd.DatetimeIndex]]:
    """Return clocks in the order of the training: one on whose grid all rows lie comes first."""
    numbered = list(enumerate(moments))
    if len(numbered) > 1:
        numbered.sort(key=lambda one: num_missing(one[1], step) is None)
    return numbered


def _require_rows(
    lengths: Sequence[int], label: str, suffixes: Sequence[str], rows: int, needed: str
) -> None:
    short = [
        f"{label}{suffix} has {length} rows"
        for suffix, length in zip(suffixes, lengths, strict=True)
        if length < rows
    ]
    if short:
        found = listed(short, between="; ")
        raise DataError(f"{found}, but {rows} are needed ({needed}); bring more rows")
