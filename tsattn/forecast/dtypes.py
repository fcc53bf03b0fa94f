"""Identifiers and times of a forecast in the types that their source has them in."""

from datetime import UTC, timezone
from typing import Any

import pandas as pd
from pandas.api import types


def as_in_pandas(cells: pd.Index, dtype: Any) -> pd.Index:
    """Return cells in a type of pandas, or as they are where they would not be the same in it.

    Args:
        cells: identifiers, timestamps or counted steps.
        dtype: the type, or None where there is none.
    """
    if dtype is None or cells.dtype == dtype or not _alike(cells.dtype, dtype):
        return cells
    if isinstance(dtype, pd.CategoricalDtype) and not cells.isin(dtype.categories).all():
        return cells
    try:
        cast = cells.astype(dtype)
        same = cast.astype(cells.dtype).equals(cells)
    except (ValueError, TypeError, OverflowError):  # no such number, or no such time
        return cells
    return cast if same else cells


def _alike(own: Any, dtype: Any) -> bool:
    """Return whether both are times or neither is, and nothing that is not text becomes text."""
    if _is_time(own) or _is_time(dtype):
        return _is_time(own) and _is_time(dtype)
    return _is_text(own) or not _is_text(dtype)


def _is_time(dtype: Any) -> bool:
    return isinstance(dtype, pd.PeriodDtype) or types.is_datetime64_any_dtype(dtype)


def _is_text(dtype: Any) -> bool:
    return types.is_object_dtype(dtype) or types.is_string_dtype(dtype)


def as_in_polars(cells: pd.Index, dtype: Any) -> Any:
    """Return cells as a column of polars, of a type if they are the same in it.

    Args:
        cells: identifiers, timestamps or counted steps.
        dtype: the type, or None where there is none.
    """
    import polars as pl

    column = pl.Series(_for_polars(cells))
    own = column.dtype
    text = dtype == pl.String and own != pl.String
    if dtype is None or own == dtype or text or own.is_temporal() != dtype.is_temporal():
        return column
    try:
        cast = column.cast(dtype)
        same = cast.cast(own).equals(column)
    except pl.exceptions.PolarsError:  # no such number, or no such name
        return column
    return cast if same else column


def _for_polars(cells: pd.Index) -> Any:
    """Return cells for polars, timestamps with their time zone.

    Those with a UTC offset become text, as which they came: polars knows zones by their names.
    """
    import polars as pl

    if not isinstance(cells, pd.DatetimeIndex) or cells.tz is None:
        return cells.to_numpy()
    if isinstance(cells.tz, timezone) and cells.tz != UTC:
        return [one.isoformat(sep=" ") for one in cells]
    moments = pl.Series(cells.tz_convert("UTC").tz_localize(None).to_numpy())
    return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(str(cells.tz))
