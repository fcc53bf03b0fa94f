"""The one step of a user's data: found, or refused with the rows that break it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed
from tsattn.data.panel import Step
from tsattn.data.stacked import stacked_error
from tsattn.data.steps import Irregularities, find_irregularities, follows, infer_step
from tsattn.data.table import Table
from tsattn.data.zones import clock_hint, clocks
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
    for clock in clocks(own):
        step = infer_step(clock)
        if step is not None:
            return step
    raise irregular(table, own, rows, series)


def irregular(table: Table, times: pd.DatetimeIndex, rows: np.ndarray, series: str) -> DataError:
    """Return the error that says where timestamps are not regular, and what helps.

    Args:
        table: Where the timestamps come from.
        times: Timestamps of the series' rows.
        rows: The rows.
        series: Name of the series as messages append it to the table's label, or nothing.
    """
    found = min(map(find_irregularities, clocks(times)), key=_count)
    label = f"{table.label}{series}"
    long = stacked_error(table, times, label) if not series else None
    if long is not None:
        return long
    if len(found.backward) == len(times) - 1:
        return DataError(
            f"{label}: the timestamps run backwards, from {table.stamp(times[0])} to "
            f"{table.stamp(times[-1])}; sort the rows, oldest first"
        )
    if found.backward:
        examples = ", ".join(table.stamp(times[row]) for row in found.backward[:_SHOWN])
        return DataError(
            f"{label}: unsorted timestamps at {table.where(rows[list(found.backward)])} "
            f"({examples}), earlier than the row above; sort the rows by time"
            f"{clock_hint(times, found.backward)}"
        )
    if found.duplicated:
        examples = ", ".join(table.stamp(times[row]) for row in found.duplicated[:_SHOWN])
        many = (
            ""
            if series or 3 * len(found.duplicated) < len(times)
            else (" (many series in one file go into the columns unique_id, ds, y)")
        )
        return DataError(
            f"{label}: duplicate timestamps at {table.where(rows[list(found.duplicated)])} "
            f"({examples}), each already in a row before; keep one row per timestamp, or set "
            f"--data.duplicates first, last or mean{many}{clock_hint(times, found.duplicated)}"
        )

    def step(row: int) -> str:
        apart = table.apart(times[row] - times[row - 1])
        where = table.where(rows[[row]])
        return f"{where} ({table.stamp(times[row])}) comes {apart} after the row above"

    shown = listed(found.uneven, step, most=_SHOWN, between="; ")
    usual = found.usual.removesuffix(" s") if table.integers else found.usual
    return DataError(
        f"{label}: irregular step: usual is {usual}, but {shown}; fill the missing "
        "rows or resample to one step, or set --data.gaps regularise together with --data.missing "
        f"interpolate or mask{clock_hint(times, found.uneven)}"
    )


def _count(found: Irregularities) -> int:
    return len(found.duplicated) + len(found.backward) + len(found.uneven)


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
        if len(rows) < 2 or any(follows(clock, step) for clock in clocks(times[rows])):
            continue
        label = f", series {name!r}"
        other = regular_step(table, times, rows, label)
        raise DataError(
            f"{table.label}{label}: its step is {table.apart(other)}, that of {names[longest]!r} "
            f"{table.apart(step)}; all series need one step: resample, or put them into "
            "another file"
        )
    return step
