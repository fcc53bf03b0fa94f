"""The one step of a user's data: found, or refused with the rows that break it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsattn.data.panel import Step
from tsattn.data.steps import find_irregularities, follows, infer_step, step_text
from tsattn.data.table import Table
from tsattn.errors import DataError

_SHOWN = 5


def regular_step(table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str) -> Step:
    """Return the step of one series.

    Args:
        table: Where the timestamps come from, for messages.
        times: Timestamps of all rows.
        rows: Rows of the series.
        series: Name of the series as messages append it to the table's label, or nothing.

    Raises:
        DataError: The timestamps repeat, run backwards or skip; with rows and what to do.
    """
    own = times[rows]
    if len(own) < 2:
        raise DataError(
            f"{table.label}{series}: {len(own)} data row is too few to tell the step; bring more "
            "rows"
        )
    step = infer_step(own)
    if step is not None:
        return step
    raise _irregular(table, own, rows, series)


def _irregular(table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str) -> DataError:
    found = find_irregularities(times)
    label = f"{table.label}{series}"
    if len(found.backward) == len(times) - 1:
        return DataError(
            f"{label}: the timestamps run backwards, from {times[0]} to {times[-1]}; sort the "
            "rows, oldest first"
        )
    if found.backward:
        examples = ", ".join(f"{times[row]}" for row in found.backward[:_SHOWN])
        return DataError(
            f"{label}: unsorted timestamps at {table.where(rows[list(found.backward)])} "
            f"({examples}), earlier than the row above; sort the rows by time"
        )
    if found.duplicated:
        examples = ", ".join(f"{times[row]}" for row in found.duplicated[:_SHOWN])
        many = (
            ""
            if series or 3 * len(found.duplicated) < len(times)
            else (" (many series in one file go into the columns unique_id, ds, y)")
        )
        return DataError(
            f"{label}: duplicate timestamps at {table.where(rows[list(found.duplicated)])} "
            f"({examples}), each already in a row before; keep one row per timestamp{many}"
        )
    shown = "; ".join(
        f"{table.where(rows[[row]])} ({times[row]}) comes {step_text(times[row] - times[row - 1])} "
        "after the row above"
        for row in found.uneven[:_SHOWN]
    )
    more = f" and {len(found.uneven) - _SHOWN} more" if len(found.uneven) > _SHOWN else ""
    return DataError(
        f"{label}: irregular step: usual is {found.usual}, but {shown}{more}; fill the missing "
        "rows or resample to one step"
    )


def common_step(
    table: Table, times: pd.DatetimeIndex, groups: Sequence[np.ndarray], names: Sequence[str]
) -> Step:
    """Return the step that all series share; the longest series sets it.

    Args:
        table: Where the timestamps come from, for messages.
        times: Timestamps of all rows.
        groups: Rows of every series.
        names: Identifiers of the series.

    Raises:
        DataError: A series is irregular or has another step.
    """
    longest = max(range(len(groups)), key=lambda index: len(groups[index]))
    step = regular_step(table, times, groups[longest], f", series {names[longest]!r}")
    for name, rows in zip(names, groups, strict=True):
        if len(rows) < 2 or follows(times[rows], step):
            continue
        label = f", series {name!r}"
        other = infer_step(times[rows])
        if other is None:
            raise _irregular(table, times[rows], rows, label)
        raise DataError(
            f"{table.label}{label}: its step is {step_text(other)}, that of {names[longest]!r} "
            f"{step_text(step)}; all series need one step: resample, or put them into another file"
        )
    return step
