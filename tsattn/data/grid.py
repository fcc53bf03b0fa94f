"""Regular rows from irregular ones: timestamps that come twice, and rows that lack."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsattn.data.panel import Step
from tsattn.data.reading import Duplicates
from tsattn.data.regularity import irregular
from tsattn.data.steps import infer_step, may_be_business_days
from tsattn.data.table import Table
from tsattn.data.zones import clocks, from_clock
from tsattn.errors import DataError

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Merged:
    """Rows of a series, each with the rows of the same timestamp that become one with it.

    Attributes:
        firsts: per timestamp the first row that has it, in order of time.
        rows: all rows in order of time.
        places: per row the place of its timestamp among ``firsts``.
        how: which of the rows counts.
    """

    firsts: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    how: Duplicates

    @property
    def num_merged(self) -> int:
        """Number of rows that were merged into another one."""
        return len(self.rows) - len(self.firsts)

    def values(self, values_RC: np.ndarray) -> np.ndarray:
        """Return one row of values for each timestamp; the mean is that of values that are there.

        Args:
            values_RC: values of all rows of the table.
        """
        if not self.num_merged:
            return values_RC[self.firsts]
        if self.how == "mean":
            groups = pd.DataFrame(values_RC[self.rows]).groupby(self.places, sort=True)
            least, mean, most = (
                one.to_numpy(np.float64) for one in (groups.min(), groups.mean(), groups.max())
            )
            return mean.clip(least, most)  # equal values stay what they are
        chosen = np.empty(len(self.firsts), dtype=np.int64)
        order = slice(None, None, -1 if self.how == "first" else 1)
        chosen[self.places[order]] = self.rows[order]  # the last one written stays
        return values_RC[chosen]


def merge(
    table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str, how: Duplicates
) -> Merged:
    """Put rows with the same timestamp together.

    Args:
        table: where the rows come from, for messages.
        times: timestamps of all rows of the table.
        rows: rows of one series.
        series: what messages append to the table's label.
        how: ``first``, ``last`` or ``mean``; ``error`` leaves every row alone.

    Raises:
        DataError: a row is earlier than the one above it, unless nothing is to be merged.
    """
    if how == "error":
        return Merged(rows, rows, np.arange(len(rows)), how)
    apart = np.diff(times.asi8[rows])
    if (apart < 0).any():
        raise irregular(table, times[rows], rows, series)
    new = np.r_[True, apart > 0]
    return Merged(rows[new], rows, np.cumsum(new) - 1, how)


def usual_step(
    table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str
) -> tuple[Step, int]:
    """Return the step on whose grid all rows of a series lie with the fewest gaps.

    Args:
        table: where the rows come from, for messages.
        times: timestamps of all rows of the table.
        rows: rows of one series, in order, no timestamp twice.
        series: what messages append to the table's label.

    Returns:
        The step, and which of the `tsattn.data.zones.clocks` it goes by.

    Raises:
        DataError: rows that are out of order, or on no grid.
    """
    own = times[rows]
    if len(own) < 2 or (np.diff(own.asi8) <= 0).any():
        raise irregular(table, own, rows, series)
    best: tuple[int, Step, int] | None = None
    fitting: list[Step] = []
    for clock, moments in enumerate(clocks(own)):
        for step in _candidates(moments):
            missing = None if step in fitting else num_missing(moments, step)
            if missing is None:
                continue
            fitting.append(step)  # the first clock that a step fits is the one that it goes by
            if best is None or missing < best[0]:
                best = missing, step, clock
    if best is None:
        raise irregular(table, own, rows, series)
    return best[1], best[2]


def _candidates(moments: pd.DatetimeIndex) -> list[Step]:
    if not _increase(moments):
        return []
    regular = infer_step(moments)
    if regular is not None:
        return [regular]
    distances, counts = np.unique(np.diff(moments.to_numpy()), return_counts=True)
    found: list[Step] = [pd.Timedelta(distances[counts.argmax()]), pd.Timedelta(distances[0])]
    months = np.diff(np.asarray(moments.year * 12 + moments.month))
    if (months > 0).all():
        few = int(np.gcd.reduce(months))
        into = moments.to_numpy() - moments.to_numpy().astype("datetime64[M]")
        if (into == into[0]).all():
            found.append(pd.DateOffset(months=few))
        elif moments.is_month_end.all():
            found.append(to_offset(f"{few}ME"))
        found += [to_offset(f"{few}{place}") for place in ("BMS", "BME")]
    if may_be_business_days(moments):
        found.append(to_offset("B"))
    return found


def num_missing(moments: pd.DatetimeIndex, step: Step) -> int | None:
    """Return how many rows lack on the grid of a step, or None where a row is not on the grid.

    Args:
        moments: timestamps without a zone; on the wall they may repeat or run backwards, when the
            clock is set back, and then they are on no grid.
        step: distance of two timestamps.
    """
    if not _increase(moments):
        return None
    if isinstance(step, pd.Timedelta):
        since = moments.to_numpy() - moments.to_numpy()[0]
        if (since % step.to_timedelta64() != np.timedelta64(0)).any():
            return None
        return int(since[-1] // step.to_timedelta64()) + 1 - len(moments)
    grid = _range(moments, step)
    return None if (grid.get_indexer(moments) < 0).any() else len(grid) - len(moments)


def _increase(moments: pd.DatetimeIndex) -> bool:
    return bool((np.diff(moments.asi8) > 0).all())


def _range(moments: pd.DatetimeIndex, step: Step) -> pd.DatetimeIndex:
    return pd.date_range(moments[0], moments[-1], freq=step, unit="us")


def fill_grid(
    table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str, step: Step, clock: int
) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Return the timestamps from the first row of a series to its last, and each row's place there.

    Args:
        table: where the rows come from, for messages.
        times: timestamps of all rows of the table.
        rows: rows of one series, in order, no timestamp twice.
        series: what messages append to the table's label.
        step: distance of two timestamps.
        clock: the clock that the step goes by.

    Raises:
        DataError: rows that are not on the grid, or many more gaps than rows.
    """
    own = times[rows]
    moments = clocks(own)[clock]
    most = 10 * len(rows) + 1_000
    counted = isinstance(step, pd.Timedelta) or not _increase(moments)
    missing = num_missing(moments, step) if counted else 0
    if missing is not None and missing > most:
        raise DataError(
            f"{table.label}{series}: {missing} rows lack between {table.stamp(own[0])} and "
            f"{table.stamp(own[-1])} at a step of {table.apart(step)}, where {len(rows)} are there:"
            " too many to insert; look at the timestamps"
        )
    grid = _range(moments, step) if missing is not None else moments[:1]
    places = grid.get_indexer(moments)
    off = np.flatnonzero((places < 0) | np.r_[False, np.diff(places) <= 0])
    if len(off):
        examples = ", ".join(table.stamp(own[row]) for row in off[:_SHOWN])
        raise DataError(
            f"{table.label}{series}: not on the grid of {table.apart(step)} from "
            f"{table.stamp(own[0])} on: {table.where(rows[off])} ({examples}); gaps can be filled, "
            "but no row moved: correct the timestamps or resample to one step"
        )
    return from_clock(grid, own, clock), places
