"""Calendar features ("marks") of timestamps, and the timestamps that follow a series."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tsattn.data.panel import Step
from tsattn.data.zones import is_short
from tsattn.errors import ConfigError

HOURLY_FOUR = ("hour_of_day", "day_of_week", "day_of_month", "day_of_year")

_HOUR = 3_600.0
_DAY = 24 * _HOUR

# feature: how to read it, counted from 0, and its largest value, which is scaled to .5
_FEATURES: Mapping[str, tuple[Callable[[pd.DatetimeIndex], object], int]] = MappingProxyType(
    {
        "minute_of_hour": (lambda times: times.minute, 59),
        "hour_of_day": (lambda times: times.hour, 23),
        "day_of_week": (lambda times: times.day_of_week, 6),
        "day_of_month": (lambda times: times.day - 1, 30),
        "day_of_year": (lambda times: times.day_of_year - 1, 365),
        "week_of_year": (lambda times: times.isocalendar().week.to_numpy(np.int64) - 1, 52),
        "month_of_year": (lambda times: times.month - 1, 11),
    }
)

FEATURES = tuple(_FEATURES)


def calendar_marks(
    times: pd.DatetimeIndex, features: Sequence[str] = HOURLY_FOUR
) -> Float[Tensor, "R M"]:
    """Describe timestamps by calendar features in [-.5, .5].

    Each feature is ``value / largest - .5``: hour of day /23, day of week /6 (Monday 0), day of
    month (d-1)/30, day of year (d-1)/365, minute of hour /59, ISO week of year (w-1)/52, month
    (m-1)/11.

    Args:
        times: Timestamps.
        features: Names out of `FEATURES`, in the order in which the network reads them; may be
            empty.

    Returns:
        float32, one row per timestamp and one column per feature.

    Raises:
        ConfigError: A feature is unknown.

    Source: PROTOCOL section 4.
    """
    unknown = [name for name in features if name not in _FEATURES]
    if unknown:
        raise ConfigError(
            f"unknown calendar feature {unknown[0]!r}; expected some of {', '.join(FEATURES)}"
        )
    marks_RM = np.empty((len(times), len(features)), dtype=np.float32)
    for column, name in enumerate(features):
        read, largest = _FEATURES[name]
        marks_RM[:, column] = np.asarray(read(times), dtype=np.float64) / largest - 0.5
    return torch.from_numpy(marks_RM)


def future_times(
    last: pd.Timestamp, step: Step, horizon: int, *, by_wall: bool = True
) -> pd.DatetimeIndex:
    """Return the ``horizon`` timestamps that follow ``last`` at distance ``step``.

    Args:
        last: The timestamp before them.
        step: Distance of two.
        horizon: How many.
        by_wall: In a time zone, whether days and calendar steps go by the clock on the wall, also
            across a night in which it is set, or else in UTC. Shorter steps always go by the time
            that passes.
    """
    if last.tz is None or is_short(step):
        return pd.date_range(last, periods=horizon + 1, freq=step)[1:]
    clock = last.tz_localize(None) if by_wall else last.tz_convert("UTC").tz_localize(None)
    moments = pd.date_range(clock, periods=horizon + 1, freq=step)[1:]
    if not by_wall:
        return moments.tz_localize("UTC").tz_convert(last.tz)
    first = np.ones(len(moments), dtype=bool)
    return moments.tz_localize(last.tz, ambiguous=first, nonexistent="shift_forward")


def default_season(step_seconds: float) -> int:
    """Return the usual season length, in steps, of data with this step.

    A day for steps below a day (10 minutes 144, 15 minutes 96, hourly 24), a week for days (7; 5
    for business days, which are 1.4 days apart on average), a year for weeks (52), months (12) and
    quarters (4), and 1 for everything else.

    Args:
        step_seconds: Seconds between two rows, the mean where months or quarters vary.
    """
    if step_seconds < _DAY:
        per_day = _DAY / step_seconds
        return round(per_day) if abs(per_day - round(per_day)) < 1e-6 else 1
    days = step_seconds / _DAY
    for lowest, highest, season in (
        (1, 1, 7),
        (1.3, 1.5, 5),
        (7, 7, 52),
        (28, 31, 12),
        (89, 93, 4),
    ):
        if lowest <= days <= highest:
            return season
    return 1
