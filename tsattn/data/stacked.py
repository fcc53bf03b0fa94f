"""Long tables that go by other column names: series that lie under each other."""

import numpy as np
import pandas as pd

from tsattn.data.table import Table
from tsattn.errors import DataError

_LETTER = r"[^\W\d_]"


def stacked_error(table: Table, times: pd.DatetimeIndex, label: str) -> DataError | None:
    """Return the error that names the column of the series, or None where there is none.

    Args:
        table: a table that was taken for one series.
        times: timestamps of all its rows.
        label: what the message calls it.
    """
    column = _series_column(table, times)
    if column is None:
        return None
    name, count = table.columns[column], table.text(column).nunique()
    return DataError(
        f"{label}: looks like a long table: column {name!r} names {count} series, each with "
        f"timestamps of its own; rename the columns: {name!r} to unique_id, that of the time to "
        "ds, that of the values to y"
    )


def _series_column(table: Table, times: pd.DatetimeIndex) -> int | None:
    """Return the column by whose values timestamps that repeat increase, or None.

    Whole numbers count only where they change exactly where time goes back: a channel may hold few
    values, too.
    """
    moments = times.asi8
    if len(moments) != table.num_rows or len(np.unique(moments)) == len(moments):
        return None
    back = np.flatnonzero(np.diff(moments) < 0)
    for column in range(len(table.columns)):
        cells, text = table.cells(column), table.text(column)
        codes, values = pd.factorize(text)
        if 2 * len(values) > len(codes) or not _increase_within(moments, codes):
            continue
        if not pd.api.types.is_numeric_dtype(cells):
            if text.str.contains(_LETTER).all():
                return column
        elif pd.api.types.is_integer_dtype(cells) and np.array_equal(
            np.flatnonzero(np.diff(codes)), back
        ):
            return column
    return None


def _increase_within(moments: np.ndarray, codes: np.ndarray) -> bool:
    order = np.argsort(codes, kind="stable")
    same = np.diff(codes[order]) == 0
    return bool((np.diff(moments[order])[same] > 0).all())
