"""UTC offsets of timestamps: times stay as written where all name the same."""

import numpy as np
import pandas as pd

from tsattn.errors import DataError

UTC = r"(?:[Zz]|UTC|GMT)"
"""Names of the offset zero."""
OFFSETS_DIFFER = "UTC offsets differ: times are taken in UTC"
"""The note where cells name several offsets, as those of a place do where its clock is set."""

_FURTHEST = 16 * 60
"""No place is so many minutes from UTC; 05:00-16:00 is a span of time."""


def offset_shifts(
    zone: pd.Series, read: np.ndarray, label: str
) -> tuple[np.ndarray, tuple[str, ...], pd.Timedelta | None]:
    """Return what brings times as written to those that count, and what was done.

    One offset everywhere is dropped; where offsets differ, times are taken in UTC.

    Args:
        zone: Offset of every cell (``Z``, ``+01:00``, ``+0100``, ``+01``), missing where it has
            none.
        read: Which cells are timestamps; what the others hold does not matter.
        label: File and column, for messages.

    Returns:
        What to add to the times, NaT where there is no such offset; notes; and what the times are
        ahead of UTC then, where that is known.

    Raises:
        DataError: Some timestamps have an offset and others none.
    """
    shifts = np.zeros(len(zone), dtype="timedelta64[m]")
    given = zone.notna().to_numpy(bool)
    if not given.any():
        return shifts, (), None
    if (read & ~given).any():
        raise DataError(
            f"{label}: some timestamps have a UTC offset and others none; write all of them alike"
        )
    minutes = _minutes(zone[given])
    exists = np.abs(minutes) < _FURTHEST
    if (minutes == minutes[0]).all():
        shifts[given] = np.where(exists, 0, np.timedelta64("NaT"))
        note = f"UTC offset {zone[given].iloc[0]} is dropped: times stay as written"
        return shifts, (note,), pd.Timedelta(minutes=int(minutes[0]))
    shifts[given] = np.where(exists, -minutes.astype("timedelta64[m]"), np.timedelta64("NaT"))
    return shifts, (OFFSETS_DIFFER,), pd.Timedelta(0)


def _minutes(zone: pd.Series) -> np.ndarray:
    """Return offsets in minutes, one that is none beyond the furthest."""
    digits = zone.str.replace(":", "", regex=False).str.ljust(5, "0")
    digits = digits.where(~zone.str.fullmatch(UTC), "+0000")
    hours, rest = digits.str.slice(1, 3).astype(int), digits.str.slice(3, 5).astype(int)
    minutes = (hours * 60 + rest).where(rest < 60, _FURTHEST)
    return minutes.where(~digits.str.startswith("-"), -minutes).to_numpy(np.int64)
