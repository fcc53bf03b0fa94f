"""Timestamps from the cells of a file: the order of day and month is proved, never guessed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsattn.data.offsets import UTC, offset_shifts
from tsattn.data.steps import infer_step
from tsattn.errors import DataError

# digits are 0 to 9: numpy and torch read no others
_CLOCK = (
    r"(?:[T ]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    r" ?(?P<half>[AaPp]\.?[Mm]\.?)?)? ?"
    # hours alone are an offset only after seconds: 2020-01-01-05 has none, 05:00-06 is a span
    rf"(?P<zone>{UTC}|[+-][0-9]{{2}}(?(second)(?::?[0-9]{{2}})?|:?[0-9]{{2}}))?"
)
_NUMERIC = re.compile(
    r"(?P<a>[0-9]{1,4})(?P<s>[-/.])(?P<b>[0-9]{1,2})(?P=s)(?P<c>[0-9]{1,4})" + _CLOCK
)
_NAMED_MONTH = re.compile(
    r"(?=.*\b[0-9]{4}\b)"
    r"(?=.*\b(?i:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?i:uary|ruary|ch|il|ust|"
    r"ember|ober)?\b)[A-Za-z0-9 ,:./+-]{8,40}"
)
# the offset after a time of day, with the year or the whole date before or behind it
_NAMED_ZONE = re.compile(
    r"(?P<head>.*?[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[AaPp]\.?[Mm]\.?)?"
    rf"(?: +[0-9]{{4}})?) *(?P<zone>{UTC}|[+-][0-9]{{2}}(?::?[0-9]{{2}}|(?=$| +[0-9]{{4}}$)))"
    r"(?P<tail>(?:[ ,].*)?)"
)
# what else names a zone, such as CET or GMT+0100, which is east for some and west for others
_OTHER_ZONE = re.compile(
    r".*(?:\+| -[0-9]|(?i:utc|gmt)|\b(?!(?:JAN|FEB|MAR|MARCH|APR|APRIL|MAY|JUNE?|JULY?|AUG|SEPT?|"
    r"OCT|NOV|DEC|MON|TUES?|WED|THU|THURS?|FRI|SAT|SUN)\b)[A-Z]{3,5}\b).*"
)
_ISO = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?")
_QUARTER = re.compile(r"[0-9]{4}[- ]?[Qq][1-4]")
# digits alone are dates only in a column that is known to hold the time
_COMPACT = {
    re.compile(r"[0-9]{8}"): "%Y%m%d",
    re.compile(r"[0-9]{4}-[0-9]{2}"): "%Y-%m",
    re.compile(r"[0-9]{4}/[0-9]{2}"): "%Y/%m",
    re.compile(r"[0-9]{4}"): "%Y",
}
# years as `tsattn.data.integers` takes them; a code such as 2000-99 is no month
_MONTH = re.compile(r"(?:1[5-9]|2[0-9])[0-9]{2}[-/](?:0[1-9]|1[0-2])")

_ORDERS = {
    "day first": ("c", "b", "a"),
    "month first": ("c", "a", "b"),
    "year first": ("a", "b", "c"),
}  # which of the three numbers is year, month and day


@dataclass(frozen=True)
class ParsedTimes:
    """Timestamps of a column.

    Attributes:
        times: One per cell; NaT where a cell is no timestamp.
        notes: What was recognised.
        unread: Rows that are no timestamp.
        offset: What the times are ahead of UTC, where the cells say so.
    """

    times: pd.DatetimeIndex
    notes: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()
    offset: pd.Timedelta | None = None


def looks_like_time(cells: pd.Series, *, digits_count: bool) -> bool:
    """Return whether at least half of some cells read as timestamps.

    Args:
        cells: Text.
        digits_count: Whether bare digits such as ``20200131`` or ``1999`` count.
    """
    patterns = [_NUMERIC, _QUARTER, _NAMED_MONTH, *(_COMPACT if digits_count else ())]
    hits = [any(pattern.fullmatch(cell) for pattern in patterns) for cell in map(str, cells)]
    return bool(hits) and 2 * sum(hits) >= len(hits)


def holds_months(cells: pd.Series) -> bool:
    """Return whether all of some cells are months such as ``2000-01``, written alike.

    Args:
        cells: Text.
    """
    if not len(cells) or not cells.str.fullmatch(_MONTH).all():
        return False
    return cells.str.get(4).nunique() == 1


def parse_times(
    cells: pd.Series,
    *,
    day_first: bool | None,
    label: str,
    groups: Sequence[np.ndarray] | None = None,
) -> ParsedTimes:
    """Read timestamps.

    Year-first dates, month names, quarters and bare digits say themselves what they are. For dates
    such as ``03/04/2020`` the order is proved by a number above 12 anywhere in the column, or by
    being the only one that gives regular, increasing timestamps.

    Args:
        cells: Text of the time column.
        day_first: The order, where the user has said it.
        label: File and column, for messages.
        groups: Rows of every series, where several share the column.

    Raises:
        DataError: The order of day and month cannot be told.
    """
    whole = [np.arange(len(cells))] if groups is None else groups
    fast = _iso(cells)
    if fast is not None:
        return ParsedTimes(fast)
    numeric = cells.str.extract(r"^" + _NUMERIC.pattern + r"$")
    if 2 * int(numeric["a"].notna().sum()) >= len(cells):
        return _numeric_times(cells, numeric, day_first, label, whole)
    if cells.str.fullmatch(_QUARTER).any():
        plain = cells.str.replace(r"[- ]", "", regex=True).str.upper()
        found = plain.where(plain.str.fullmatch(_QUARTER))
        times = pd.DatetimeIndex(
            [pd.Period(cell, "Q").start_time if isinstance(cell, str) else pd.NaT for cell in found]
        )
        return _finish(times, ("dates: quarters, taken as their first day",))
    for pattern, style in _COMPACT.items():
        matches = cells.str.fullmatch(pattern)
        if 2 * int(matches.sum()) >= len(cells):
            times = pd.to_datetime(cells.where(matches), format=style, errors="coerce")
            return _finish(pd.DatetimeIndex(times), (f"dates: {style}",))
    return _named_times(cells, label)


def _finish(
    times: pd.DatetimeIndex, notes: tuple[str, ...], offset: pd.Timedelta | None = None
) -> ParsedTimes:
    unread = tuple(np.flatnonzero(times.isna()).tolist())
    return ParsedTimes(times.as_unit("us"), notes, unread, offset)


def _named_times(cells: pd.Series, label: str) -> ParsedTimes:
    """Read dates with month names; pandas gets them without the offset, which it would apply."""
    named = cells.where(cells.str.fullmatch(_NAMED_MONTH))
    parts = named.str.extract(rf"^{_NAMED_ZONE.pattern}$")
    plain = named.where(parts["zone"].isna(), parts["head"] + parts["tail"])
    plain = plain.where(~plain.str.fullmatch(_OTHER_ZONE, na=False))
    times = pd.to_datetime(plain, format="mixed", errors="coerce", utc=True).dt.tz_localize(None)
    read = times.notna().to_numpy(bool)
    shifts, notes, offset = offset_shifts(parts["zone"], read, label)
    moments = pd.DatetimeIndex(times.to_numpy("datetime64[us]") + shifts)
    return _finish(moments, ("dates: with month names", *notes), offset)


def _iso(cells: pd.Series) -> pd.DatetimeIndex | None:
    """Read plain ISO 8601 quickly, or return None.

    Of a few hundred rows, numpy takes a fifth of the time of pandas.
    """
    texts = cells.tolist()
    if not all(map(_ISO.fullmatch, texts)):
        return None
    try:
        return pd.DatetimeIndex(np.array(texts, dtype="datetime64[us]"))
    except ValueError:  # a day or an hour that does not exist
        return None


def _numeric_times(
    cells: pd.Series,
    parts: pd.DataFrame,
    day_first: bool | None,
    label: str,
    groups: Sequence[np.ndarray],
) -> ParsedTimes:
    read = parts["a"].notna().to_numpy(bool)
    shifts, notes, offset = offset_shifts(parts["zone"], read, label)
    clock = _clock(parts) + shifts
    candidates = {
        order: _dates(parts, order) + clock for order in _possible_orders(parts, day_first)
    }
    valid = {order: times for order, times in candidates.items() if not np.isnat(times).any()}
    if not valid:
        best = min(candidates, key=lambda order: int(np.isnat(candidates[order]).sum()))
        unread = np.isnat(candidates[best])
        if len(candidates) > 1 and day_first is None:
            _raise_mixed_orders(cells, parts, candidates, label)
        return ParsedTimes(
            pd.DatetimeIndex(candidates[best]),
            (f"dates: {best}",),
            tuple(np.flatnonzero(unread).tolist()),
        )
    chosen, why = _choose(valid, cells, label, groups)
    if len(candidates) == 1 and day_first is not None and chosen != "year first":
        why = "as --data.day_first says"
    notes = (f"dates: {chosen}{f' ({why})' if why else ''}", *notes)
    return ParsedTimes(pd.DatetimeIndex(valid[chosen]), notes, offset=offset)


def _possible_orders(parts: pd.DataFrame, day_first: bool | None) -> tuple[str, ...]:
    lengths = parts["a"].str.len()
    if 2 * int((lengths == 4).sum()) >= len(parts):
        return ("year first",)
    if day_first is not None:
        return ("day first",) if day_first else ("month first",)
    if 2 * int((parts["c"].str.len() == 4).sum()) >= len(parts):
        return ("day first", "month first")
    return ("day first", "month first", "year first")


def _choose(
    valid: dict[str, np.ndarray], cells: pd.Series, label: str, groups: Sequence[np.ndarray]
) -> tuple[str, str]:
    orders = list(valid)
    if len(orders) == 1:
        return orders[0], "" if orders[0] == "year first" else "another order gives no dates"
    if all((valid[order] == valid[orders[0]]).all() for order in orders[1:]):
        return orders[0], "every order gives the same dates"
    regular = [
        order
        for order in orders
        if all(
            len(rows) < 2 or infer_step(pd.DatetimeIndex(valid[order][rows])) is not None
            for rows in groups
        )
    ]
    if len(regular) == 1:
        return regular[0], "the only order that gives regular steps"
    first = valid[orders[0]]
    differing = min(
        int((valid[order] != first).argmax())
        for order in orders[1:]
        if (valid[order] != first).any()
    )
    readings = " or ".join(
        f"{order} ({pd.Timestamp(valid[order][differing]).date()})" for order in orders
    )
    raise DataError(
        f"{label}: the date {cells.iloc[differing]!r} can be read {readings}, and nothing in the "
        "column decides; set --data.day_first true or --data.day_first false, or write dates as "
        "2020-12-31"
    )


def _raise_mixed_orders(
    cells: pd.Series, parts: pd.DataFrame, candidates: dict[str, np.ndarray], label: str
) -> None:
    readable = parts["a"].notna().to_numpy()
    day = readable & ~np.isnat(candidates["day first"]) & np.isnat(candidates["month first"])
    month = readable & ~np.isnat(candidates["month first"]) & np.isnat(candidates["day first"])
    if day.any() and month.any():
        raise DataError(
            f"{label}: the dates do not agree: {cells[day].iloc[0]!r} has the day first, "
            f"{cells[month].iloc[0]!r} the month; write all dates in one order, best as 2020-12-31"
        )


def _dates(parts: pd.DataFrame, order: str) -> np.ndarray:
    """Return dates as ``datetime64[us]``, NaT where they do not exist."""
    year, month, day = (
        pd.to_numeric(parts[name]).fillna(0).to_numpy(np.int64) for name in _ORDERS[order]
    )
    digits = parts[_ORDERS[order][0]].str.len()
    short = (digits == 2).to_numpy(dtype=bool, na_value=False)
    # two digits as in POSIX: 69 to 99 are 1969 to 1999
    year = np.where(short, np.where(year >= 69, year + 1900, year + 2000), year)
    exists = (year >= 1000) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = (np.where(exists, year, 2000) - 1970).astype("datetime64[Y]").astype("datetime64[M]")
    months = months + (np.where(exists, month, 1) - 1)
    dates = months.astype("datetime64[D]") + (np.where(exists, day, 1) - 1)
    exists &= dates.astype("datetime64[M]") == months
    return np.where(exists, dates.astype("datetime64[us]"), np.datetime64("NaT", "us"))


def _clock(parts: pd.DataFrame) -> np.ndarray:
    """Return the time of day as written, NaT where it does not exist."""

    def number(name: str) -> np.ndarray:
        return pd.to_numeric(parts[name]).fillna(0).to_numpy(np.int64)

    hour, minute, second = number("hour"), number("minute"), number("second")
    half = parts["half"].str.lower().str.replace(".", "", regex=False).fillna("").to_numpy(str)
    bad = (hour > np.where(half == "", 23, 12)) | (minute > 59) | (second > 59)
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "pm"))
    fraction = parts["fraction"].str.slice(0, 6).str.ljust(6, "0")
    micros = pd.to_numeric(fraction).fillna(0).to_numpy(np.int64)
    total = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros
    return np.where(bad, np.timedelta64("NaT", "us"), total.astype("timedelta64[us]"))
