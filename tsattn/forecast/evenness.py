"""Whether the rows that a forecast needs follow each other at the step of the training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsattn.data.panel import Step
from tsattn.data.regularity import regular_step
from tsattn.data.steps import follows
from tsattn.data.table import Table
from tsattn.data.zones import clocks
from tsattn.errors import DataError


def require_step(
    table: Table,
    times: pd.DatetimeIndex,
    rows_KN: np.ndarray,
    suffixes: Sequence[str],
    step: Step,
) -> None:
    """Refuse rows that do not follow each other at the step of the training.

    Timestamps with a time zone may do so either by the clock on the wall or in UTC, so that neither
    hourly nor daily rows break where the clock is set.

    Args:
        table: where the rows come from, for messages.
        times: timestamps of all rows.
        rows_KN: rows of every name.
        suffixes: what messages append to the table's label, per name.
        step: the step.

    Raises:
        DataError: with the rows that break it, or the step that the rows have instead.
    """
    if rows_KN.shape[1] < 2:
        return
    even_K = np.zeros(len(rows_KN), dtype=bool)
    for clock in clocks(times):
        even_K |= _even(clock, rows_KN, step)
    if not even_K.all():
        name = int(np.flatnonzero(~even_K)[0])
        raise _uneven(table, times, rows_KN[name], suffixes[name], step)


def _even(times: pd.DatetimeIndex, rows_KN: np.ndarray, step: Step) -> np.ndarray:
    moments_KN = times.to_numpy()[rows_KN]
    if isinstance(step, pd.Timedelta):
        return (np.diff(moments_KN, axis=1) == step.to_timedelta64()).all(axis=1)
    if (moments_KN == moments_KN[0]).all():
        return np.full(len(rows_KN), follows(pd.DatetimeIndex(moments_KN[0]), step))
    return np.array([follows(pd.DatetimeIndex(moments), step) for moments in moments_KN])


def _uneven(
    table: Table, times: pd.DatetimeIndex, rows: np.ndarray, suffix: str, step: Step
) -> DataError:
    label = f"{table.label}{suffix}"
    found = regular_step(table, times, rows, suffix)  # raises, with the rows
    return DataError(
        f"{label}: the step of the last rows is {table.apart(found)}, that of the training "
        f"{table.apart(step)}; resample the data, or train a network on this step"
    )
