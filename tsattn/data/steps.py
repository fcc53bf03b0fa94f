"""The step between timestamps: what it is, and where a sequence departs from it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsattn.data.amounts import listed
from tsattn.data.panel import Step

_BUSINESS_DAY = "a business day"


def infer_step(times: pd.DatetimeIndex) -> Step | None:
    """Return the step of increasing, regular timestamps, or None where they are not regular.

    A constant distance is regular, and so are calendar steps: months, quarters and years at a fixed
    place, business days.

    Args:
        times: Timestamps; fewer than two have no step.
    """
    if len(times) < 2:
        return None
    distances = np.diff(times.to_numpy())
    if (distances <= np.timedelta64(0)).any():
        return None
    if (distances == distances[0]).all():
        return pd.Timedelta(distances[0])
    months = _months_apart(times)
    if months is not None:
        return pd.DateOffset(months=months)
    step = _anchored_step(times)
    return step if step is not None and follows(times, step) else None


def _months_apart(times: pd.DatetimeIndex) -> int | None:
    """Return the months between timestamps at one day and hour of the month, or None."""
    moments = times.to_numpy()
    firsts = moments.astype("datetime64[M]")  # of the month
    apart = np.diff(firsts.astype(np.int64))
    if apart[0] < 1 or (apart != apart[0]).any():
        return None
    into_month = moments - firsts
    return int(apart[0]) if (into_month == into_month[0]).all() else None


def _anchored_step(times: pd.DatetimeIndex) -> Step | None:
    """Return what pandas makes of the timestamps: month ends, business days and the like."""
    if len(times) < 3:
        return None
    with warnings.catch_warnings():  # what infer_freq returns is changing; to_offset takes both
        warnings.simplefilter("ignore")
        inferred = pd.infer_freq(times)
    return None if inferred is None else to_offset(inferred)


def follows(times: pd.DatetimeIndex, step: Step) -> bool:
    """Return whether every timestamp lies one ``step`` after the one before it."""
    if len(times) < 2:
        return True
    if isinstance(step, pd.Timedelta):
        return bool((np.diff(times.to_numpy()) == step.to_timedelta64()).all())
    months = _months(step)
    if months:
        return _months_apart(times) == months
    expected = pd.date_range(times[0], periods=len(times), freq=step)
    return bool((expected == times).all())


def mean_step_seconds(times: pd.DatetimeIndex) -> float:
    """Return the mean distance of two timestamps in seconds."""
    return float((times[-1] - times[0]).total_seconds() / max(1, len(times) - 1))


@dataclass(frozen=True)
class Irregularities:
    """Where timestamps depart from increasing by the usual step; all positions are row indices.

    Attributes:
        usual: The most common distance of two rows, as people write it.
        duplicated: Rows whose timestamp an earlier row already has.
        backward: Rows earlier than the row before them.
        uneven: Rows that come later than the row before, but not by the usual distance.
    """

    usual: str
    duplicated: tuple[int, ...]
    backward: tuple[int, ...]
    uneven: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.duplicated or self.backward or self.uneven)


def find_irregularities(times: pd.DatetimeIndex) -> Irregularities:
    """Compare timestamps with the step that explains most of them.

    Candidates are the most common constant distance, months at a fixed day, and business days.
    """
    zero = np.timedelta64(0)
    distances = np.diff(times.to_numpy())
    usual, uneven = _best_step(times, distances)
    return Irregularities(
        usual=usual,
        duplicated=_indices(times.duplicated()),
        backward=_indices(distances < zero, offset=1),
        uneven=_indices(uneven & (distances > zero), offset=1),
    )


def _best_step(times: pd.DatetimeIndex, distances: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the step with the fewest exceptions, and which distances are exceptions."""
    forward = distances[distances > np.timedelta64(0)]
    if not len(forward):
        return "unknown", np.zeros(len(distances), dtype=bool)
    constant = _most_common(forward)
    candidates = [(step_text(pd.Timedelta(constant)), distances != constant)]
    same_day = (times.day == times.day[0]).all() or times.is_month_end.all()
    months = np.diff(np.asarray(times.year * 12 + times.month))
    if same_day and (months > 0).any():
        month = _most_common(months[months > 0])
        candidates.append((_months_text(int(month)), months != month))
    if may_be_business_days(times):
        days = times.to_numpy().astype("datetime64[D]")
        candidates.append((_BUSINESS_DAY, days[1:] != np.busday_offset(days[:-1], 1)))
    return min(candidates, key=lambda candidate: int(candidate[1].sum()))


def may_be_business_days(times: pd.DatetimeIndex) -> bool:
    """Return whether timestamps lie on weekdays at one time of day, be it midnight or 16:00."""
    moments = times.to_numpy()
    into_day = moments - moments.astype("datetime64[D]")
    return bool((times.day_of_week < 5).all() and (into_day == into_day[0]).all())


def _most_common(values: np.ndarray) -> Any:
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


def _indices(mask: np.ndarray, offset: int = 0) -> tuple[int, ...]:
    return tuple((np.flatnonzero(mask) + offset).tolist())


def step_text(step: Step | None) -> str:
    """Return a step as people write it, such as ``1 h``, ``15 min`` or ``7 d``."""
    if step is None:
        return "unknown"
    if not isinstance(step, pd.Timedelta):
        months = _months(step)
        if step.freqstr == "B":
            return _BUSINESS_DAY
        return _months_text(months) if months else str(step.freqstr)
    return seconds_text(step.total_seconds())


def seconds_text(seconds: float) -> str:
    """Return a duration as people write it, such as ``1 h`` or ``15 min``."""
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{int(count)} {unit}")
    if seconds or not parts:
        parts.append(f"{seconds:g} s")
    return " ".join(parts)


def _months(step: Step) -> int | None:
    """Return the months of a `pandas.DateOffset`; anchored steps such as month ends have none."""
    return getattr(step, "months", None)


def _months_text(months: int) -> str:
    count, unit = (months // 12, "year") if months % 12 == 0 else (months, "month")
    return f"{count} {unit}{'s' if count > 1 else ''}"


def encode_step(step: Step) -> str:
    """Return a step as text that `decode_step` reads back exactly."""
    if isinstance(step, pd.Timedelta):
        return step.isoformat()
    months = _months(step)
    return f"months:{months}" if months else str(step.freqstr)


def decode_step(text: str) -> Step:
    """Return the step that `encode_step` wrote."""
    if text.startswith("P"):
        return pd.Timedelta(text)
    if text.startswith("months:"):
        return pd.DateOffset(months=int(text.removeprefix("months:")))
    return to_offset(text)


def gap_texts(times: pd.DatetimeIndex, rows: Sequence[int], limit: int = 5) -> str:
    """Describe the distances before some rows: ``from A to B (2 h)``."""

    def gap(row: int) -> str:
        return f"{times[row - 1]} to {times[row]} ({step_text(times[row] - times[row - 1])})"

    return listed(rows, gap, most=limit)
