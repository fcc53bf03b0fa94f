"""Time zones: local timestamps and the nights in which the clock is set."""

from collections.abc import Sequence
from datetime import timezone

import numpy as np
import pandas as pd

from tsattn.data.panel import Step
from tsattn.data.steps import follows
from tsattn.data.table import Table
from tsattn.errors import DataError

_HOUR = pd.Timedelta(hours=1)
_MONTHS = (3, 4, 9, 10, 11)
"""In which clocks are set, on a Sunday, wherever they are."""


def wall_time(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return timestamps without a zone, as a clock on the wall shows them."""
    return times.tz_localize(None)


def clocks(times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, ...]:
    """Return timestamps without a zone by every clock that they may be regular by.

    Those with a zone may follow each other in UTC, as hours do, or by the clock on the wall, as
    days do.
    """
    if times.tz is None:
        return (times,)
    return (times.tz_convert("UTC").tz_localize(None), wall_time(times))


def from_clock(moments: pd.DatetimeIndex, like: pd.DatetimeIndex, clock: int) -> pd.DatetimeIndex:
    """Return timestamps of one of the `clocks` of ``like`` with the zone of that.

    A time on the wall that is skipped when the clock is set becomes the next one that exists; one
    that comes twice is the first of the two.
    """
    if like.tz is None:
        return moments
    if clock == 0:
        return moments.tz_localize("UTC").tz_convert(like.tz)
    first = np.ones(len(moments), dtype=bool)
    return moments.tz_localize(like.tz, ambiguous=first, nonexistent="shift_forward")


def is_short(step: Step) -> bool:
    """Return whether a step is no number of days or months, so that no clock can shift it."""
    return isinstance(step, pd.Timedelta) and bool(step % pd.Timedelta(days=1))


def goes_by_utc(series: Sequence[pd.DatetimeIndex], step: Step) -> bool:
    """Return whether days, or longer steps, follow each other in UTC and not on the wall.

    Args:
        series: regular timestamps of every series.
        step: distance of two.
    """
    if series[0].tz is None or is_short(step):
        return False
    in_utc, on_wall = zip(*map(clocks, series), strict=True)
    return all(follows(one, step) for one in in_utc) and not all(
        follows(one, step) for one in on_wall
    )


def clock_of(times: pd.DatetimeIndex, offset: pd.Timedelta | None) -> str | None:
    """Return the name of the clock that timestamps go by, or None where nothing names it.

    Args:
        times: with a zone, or without one as that clock shows them.
        offset: what the clock is ahead of UTC, where cells said so.
    """
    zone = times.tz
    if zone is None:
        zone = None if offset is None else timezone(offset.to_pytimedelta())
    try:
        return known_clock(None if zone is None else str(zone))
    except (ValueError, KeyError):  # a zone without a name
        return None


def known_clock(name: str | None) -> str | None:
    """Return the name of a clock if timestamps can be brought to it.

    Args:
        name: a time zone, or a distance from UTC such as ``UTC+01:00``.

    Raises:
        ValueError: there is no such clock.
        KeyError: there is no such zone.
    """
    if name is not None:
        pd.Timestamp(0, tz="UTC").tz_convert(name)
    return name


def in_zone(
    table: Table, times: pd.DatetimeIndex, groups: list[np.ndarray], zone: str | None
) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Bring timestamps into a zone; those without one are taken for its local time.

    Of an hour that comes twice in autumn, the first run of rows is the first, and rows that jump
    back the second. Rows that begin within that hour are the second where the next row follows it
    at their step, as the first of data that go on do.

    Args:
        table: where they come from, for messages.
        times: one per row of the table.
        groups: rows of every series, in order.
        zone: the zone, or None to leave the timestamps as they are.

    Returns:
        The timestamps, and notes on what was done.

    Raises:
        DataError: a local time that does not exist there, with its rows.
    """
    if zone is None:
        return times, ()
    if times.tz is not None:
        return times.tz_convert(zone), (f"time zone: converted to {zone}",)
    first = np.ones(len(times), dtype=bool)
    shifted = times.tz_localize(zone, ambiguous=first, nonexistent="NaT")
    skipped = np.flatnonzero(shifted.isna())
    if len(skipped):
        examples = ", ".join(str(times[row]) for row in skipped[:5])
        raise DataError(
            f"{table.label}: no such local time in {zone}, where the clock is set forward, in "
            f"{table.where(skipped)}: {examples}; correct these rows, or leave --data.time_zone out"
            " if the clock of the data is never set (standard time all year)"
        )
    twice = times.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna()
    if twice.any():
        for rows in groups:
            first[rows] = _first_of_two(times[rows], np.asarray(twice)[rows])
        shifted = times.tz_localize(zone, ambiguous=first)
    return shifted, (f"time zone: local times of {zone}",)


def _first_of_two(times: pd.DatetimeIndex, twice: np.ndarray) -> np.ndarray:
    """Return for rows in order whether each is before the clock was set back."""
    back = np.r_[False, np.diff(times.asi8) <= 0]
    first = np.ones(len(times), dtype=bool)
    second = _begin_in_second(times, twice)
    for row in np.flatnonzero(twice):
        if row and not twice[row - 1]:
            second = False  # another night
        elif back[row]:
            second = True
        first[row] = not second
    return first


def _begin_in_second(times: pd.DatetimeIndex, twice: np.ndarray) -> bool:
    """Return whether the first rows lie in the second of two hours: the next one follows at once.

    Only steps that fit into an hour tell, since rows of both hours would be there.
    """
    run = len(twice) if twice.all() else int(twice.argmin())
    apart = np.diff(times.to_numpy())
    if not 0 < run < len(twice) or (apart[:run] <= np.timedelta64(0)).any():
        return False
    return bool(apart[run - 1] == apart[run - 1 :].min() <= _HOUR.to_timedelta64())


def clock_hint(times: pd.DatetimeIndex, rows: tuple[int, ...]) -> str:
    """Return advice where rows look like nights in which the clock is set, else nothing.

    Args:
        times: timestamps of a series.
        rows: where they depart from the usual step.
    """
    usual = pd.Series(times).diff().mode() if times.tz is None else []
    if not len(usual) or not pd.Timedelta(0) < usual[0] <= 3 * _HOUR:
        return ""
    for row in rows:
        time, apart = times[row], times[row] - times[row - 1]
        night = time.day_of_week == 6 and time.hour <= 4 and time.month in _MONTHS
        skipped = apart == usual[0] + _HOUR
        if night and (skipped or pd.Timedelta(0) >= apart >= -_HOUR):
            what = "is skipped" if skipped else "comes twice"
            return (
                f". An hour {what} in the night of {time.date()}, a Sunday, as where the clock is "
                "set: if these are local times, name their zone, for example --data.time_zone "
                "Europe/Berlin"
            )
    return ""
