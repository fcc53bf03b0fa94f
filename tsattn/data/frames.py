"""Frames of pandas and polars as plain columns: what an index says of the time becomes one."""

from typing import Any

import numpy as np
import pandas as pd

from tsattn.errors import DataError

LONG_COLUMNS = ("unique_id", "ds", "y")


def is_polars(frame: Any) -> bool:
    """Return whether something is of polars; polars is not imported for that."""
    return type(frame).__module__.partition(".")[0] == "polars"


def from_polars(frame: Any) -> pd.DataFrame:
    """Return a frame of polars as one of pandas, timestamps with their time zone.

    Raises:
        DataError: it is something else of polars.
    """
    collected = frame.collect() if hasattr(frame, "collect") else frame
    if not hasattr(collected, "get_columns"):
        raise DataError(
            f"a polars {type(frame).__name__} is no frame; expected a DataFrame or LazyFrame"
        )
    return pd.DataFrame({one.name: _to_pandas(one) for one in collected.get_columns()})


def _to_pandas(column: Any) -> Any:
    zone = getattr(column.dtype, "time_zone", None)
    cells = column.to_numpy()
    return cells if zone is None else pd.DatetimeIndex(cells).tz_localize("UTC").tz_convert(zone)


def plain_frame(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return a frame whose index holds nothing of the data, and whether it held the time alone.

    An index of timestamps becomes the first column, unless a column of its name holds the same.
    Levels ``unique_id``, ``ds`` and ``y`` of another index become columns, too.

    Raises:
        DataError: the index and a column of its name hold different times.
    """
    index = frame.index
    if isinstance(index, pd.RangeIndex) and index.name is None and index.equals(_count(frame)):
        return frame, False
    names = [str(name).strip() for name in frame.columns]
    if isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
        name = str(index.name or "date")
        if name not in names:
            return frame.rename_axis(name).reset_index(), True
        if names.count(name) == 1:  # else the column is refused for that
            _require_same_times(index, frame.iloc[:, names.index(name)], name)
        return frame.reset_index(drop=True), False
    lowered = [name.casefold() for name in names]
    levels = [
        level
        for level, name in enumerate(index.names)
        if str(name).casefold() in LONG_COLUMNS and str(name).casefold() not in lowered
    ]
    return (frame.reset_index(level=levels) if levels else frame).reset_index(drop=True), False


def _count(frame: pd.DataFrame) -> pd.RangeIndex:
    return pd.RangeIndex(len(frame))


def _require_same_times(
    index: pd.DatetimeIndex | pd.PeriodIndex, cells: pd.Series, name: str
) -> None:
    try:
        same = np.array_equal(_stamps(index), _stamps(pd.Index(cells)))
    except (ValueError, TypeError, OverflowError):
        same = False
    if not same:
        raise DataError(
            f"the frame has its time twice, and differently: an index of timestamps"
            f"{'' if index.name else ' without a name'}, and a column {name!r}; drop the column, "
            "or the index with reset_index(drop=True)"
        )


def _stamps(times: pd.Index) -> np.ndarray:
    if isinstance(times, pd.PeriodIndex):
        times = times.to_timestamp()
    return pd.DatetimeIndex(times).as_unit("us").asi8
