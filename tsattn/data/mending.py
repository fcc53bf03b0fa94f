"""From the rows of a table to series at one step, with gaps where values are missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed
from tsattn.data.grid import Merged, fill_grid, merge, usual_step
from tsattn.data.numerals import channel_values
from tsattn.data.panel import Step
from tsattn.data.regularity import common_step, regular_step
from tsattn.data.table import Table
from tsattn.data.treatment import Treated, Treatment
from tsattn.errors import DataError


@dataclass(frozen=True, eq=False)
class Mended:
    """Series at one step.

    Attributes:
        times: timestamps of every series.
        values: float64 rows x channels of every series, NaN where a value is missing.
        step: distance of two rows.
        treated: what was done.
        notes: what was recognised in the cells.
    """

    times: tuple[pd.DatetimeIndex, ...]
    values: tuple[np.ndarray, ...]
    step: Step
    treated: Treated
    notes: tuple[str, ...]


def mend(
    table: Table,
    times: pd.DatetimeIndex,
    groups: Sequence[np.ndarray],
    names: Sequence[str] | None,
    columns: Sequence[int],
    decimal: str | None,
    treatment: Treatment,
) -> Mended:
    """Make one step out of the rows of every series, as far as the policy allows, or refuse.

    Args:
        table: file or frame.
        times: timestamps of all rows.
        groups: rows of every series.
        names: the series' names, or None where the table is one series.
        columns: positions of the channels.
        decimal: decimal sign, where the user has said it.
        treatment: what may be done.

    Raises:
        DataError: timestamps or cells that the policy does not allow; with rows and columns.
    """
    suffixes = [""] if names is None else [f", series {name!r}" for name in names]
    merged = [
        merge(table, times, rows, suffix, treatment.duplicates)
        for rows, suffix in zip(groups, suffixes, strict=True)
    ]
    firsts = [one.firsts for one in merged]
    if treatment.gaps == "error":
        step = (
            regular_step(table, times, firsts[0], "")
            if names is None
            else common_step(table, times, firsts, names)
        )
        grids = [(times[rows], np.arange(len(rows))) for rows in firsts]
    else:
        longest = max(range(len(firsts)), key=lambda index: len(firsts[index]))
        step, clock = usual_step(table, times, firsts[longest], suffixes[longest])
        grids = [
            fill_grid(table, times, rows, suffix, step, clock)
            for rows, suffix in zip(firsts, suffixes, strict=True)
        ]
    inserted = [len(times) - len(rows) for (times, _), rows in zip(grids, firsts, strict=True)]
    _require_mostly_there(table, inserted, sum(map(len, firsts)), step)
    values_RC, notes = channel_values(
        table, columns, decimal, allow_missing=treatment.takes_missing
    )
    found = [_placed(one, grid, values_RC) for one, grid in zip(merged, grids, strict=True)]
    _require_values(table, found, [table.columns[column] for column in columns], suffixes)
    treated = Treated(
        missing=sum(int(np.isnan(values).sum()) for values in found),
        values=sum(values.size for values in found),
        merged=sum(one.num_merged for one in merged),
        inserted=sum(inserted),
    )
    return Mended(tuple(grid for grid, _ in grids), tuple(found), step, treated, notes)


def _require_mostly_there(table: Table, inserted: Sequence[int], there: int, step: Step) -> None:
    """Refuse a step at which most rows would be without values: the data hardly have that step."""
    if sum(inserted) > there:
        raise DataError(
            f"{table.label}: at a step of {table.apart(step)}, the only one on which all rows lie, "
            f"{sum(inserted)} of {sum(inserted) + there} rows would have to be inserted, more than "
            "half; correct timestamps that are off, resample to the step that is meant, or leave "
            "out a stretch with hardly a row"
        )


def _placed(
    merged: Merged, grid: tuple[pd.DatetimeIndex, np.ndarray], values_RC: np.ndarray
) -> np.ndarray:
    times, places = grid
    own_RC = merged.values(values_RC)
    if np.array_equal(places, np.arange(len(times))):
        return own_RC
    filled_RC = np.full((len(times), own_RC.shape[1]), np.nan)
    filled_RC[places] = own_RC
    return filled_RC


def _require_values(
    table: Table, found: Sequence[np.ndarray], channels: Sequence[str], suffixes: Sequence[str]
) -> None:
    empty = [
        suffix.removeprefix(", ") or f"column {channels[int(place)]!r}"
        for values, suffix in zip(found, suffixes, strict=True)
        for place in np.flatnonzero(np.isnan(values).all(axis=0))
    ]
    if empty:
        raise DataError(
            f"{table.label}: no value at all in {listed(empty)}; remove what was never measured"
        )
