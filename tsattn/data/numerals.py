"""Numbers from the cells of a file."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsattn.data.decimals import COMMA_GROUPS, NUMBER, POINT_GROUPS, decimal_sign, is_number
from tsattn.data.table import Table
from tsattn.errors import DataError

# cells that say that there is no value
NOTHING = frozenset(
    {"", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil", "missing", "-", "?"}
)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?")
_SHOWN = 6


def channel_values(
    table: Table,
    columns: Sequence[int],
    decimal: str | None,
    rows: np.ndarray | None = None,
    *,
    allow_missing: bool = False,
    beside: Sequence[int] = (),
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the channels of a table.

    Args:
        table: The file or frame.
        columns: Positions of the channels.
        decimal: Decimal sign, ``.`` or ``,``; None recognises it.
        rows: The rows that are needed; what the others hold does not matter. None means all.
        allow_missing: Whether cells may be empty or hold a word of `NOTHING`; they become NaN.
            Other text and infinite numbers are refused all the same.
        beside: Columns that decide the decimal sign where the channels leave it open.

    Returns:
        float64 rows x channels, finite (or missing) in the rows needed, and notes on what was
        recognised.

    Raises:
        DataError: A cell is no finite number, or the decimal sign cannot be told; with lines,
            columns and what to do.
    """
    sign, notes = decimal_sign(table, columns, decimal, beside)
    values_RC = _read_values(table, columns, sign)
    unusable = ~np.isfinite(values_RC)
    if rows is not None:
        needed = np.zeros(table.num_rows, dtype=bool)
        needed[rows] = True
        unusable &= needed[:, np.newaxis]
    bad = np.argwhere(unusable) if unusable.any() else np.empty((0, 2), dtype=np.intp)
    if allow_missing and len(bad):
        nothing = _nothing(table, columns, bad)
        values_RC[tuple(bad[nothing].T)] = np.nan
        bad = bad[~nothing]
    if len(bad):
        raise _bad_cells(table, [(int(row), columns[place]) for row, place in bad])
    return values_RC, notes


def with_flags(table: Table, names: Sequence[str]) -> Table:
    """Return the table with True and False of some columns as 1 and 0.

    Columns of text or objects count where every cell is True or False, or says that there is no
    value, as those do in which some rows are empty.

    Args:
        table: The file or frame.
        names: Columns that may be there.
    """
    places = [place for place, name in enumerate(table.columns) if name in names]
    flags = {place: _flags(table, place) for place in places}
    flags = {place: cells for place, cells in flags.items() if cells is not None}
    if not flags:
        return table
    columns = {place: table.cells(place) for place in range(len(table.columns))}
    return replace(table, frame=pd.DataFrame(columns | flags))


def _flags(table: Table, column: int) -> pd.Series | None:
    """Return a column with 1 and 0 for True and False, or None where it holds something else."""
    cells = table.cells(column)
    if pd.api.types.is_bool_dtype(cells):
        return cells.astype("Int8")
    if not (pd.api.types.is_object_dtype(cells) or pd.api.types.is_string_dtype(cells)):
        return None
    text = table.text(column)
    numbers = text.str.casefold().map({"true": 1, "false": 0})
    others = text[numbers.isna()]
    if len(others) == len(text) or not others.str.casefold().isin(NOTHING).all():
        return None
    return numbers.astype("Int8")


def covariate_values(
    table: Table, columns: Sequence[int], decimal: str | None, rows: np.ndarray | None = None
) -> np.ndarray:
    """Read columns as `channel_values` does, and call them covariates where one has no number.

    The other columns of the table, but for ``unique_id``, help to tell the decimal sign.

    Raises:
        DataError: A cell is no finite number; with lines, columns and what to do.
    """
    try:
        # names of series are no numbers, whatever they look like
        beside = [place for place, name in enumerate(table.columns) if name != "unique_id"]
        return channel_values(table, columns, decimal, rows, beside=beside)[0]
    except DataError as error:
        needed = "covariates must hold finite numbers (or True and False)"
        told = str(error).replace("channels must hold finite numbers", needed)
        raise DataError(told) from None


def _nothing(table: Table, columns: Sequence[int], bad: np.ndarray) -> np.ndarray:
    """Return which of some cells, as row and place, say that there is no value."""
    nothing = np.zeros(len(bad), dtype=bool)
    for place in np.unique(bad[:, 1]):
        mine = bad[:, 1] == place
        cells = table.text(columns[place]).iloc[bad[mine, 0]]
        nothing[mine] = cells.str.casefold().isin(NOTHING).to_numpy(bool)
    return nothing


def lenient_values(table: Table, columns: Sequence[int], decimal: str | None) -> np.ndarray:
    """Read the channels of a table as `channel_values` does, with NaN where a cell is no number."""
    try:
        sign, _ = decimal_sign(table, columns, decimal)
    except DataError:
        sign = "."
    return _read_values(table, columns, sign)


def text_counts(table: Table, columns: Sequence[int], values_RC: np.ndarray) -> list[int]:
    """Return per column how many cells are text: neither a number nor a word of `NOTHING`.

    Args:
        table: The file or frame.
        columns: Positions of the channels.
        values_RC: What `lenient_values` has read.
    """
    counts: list[int] = []
    for place, column in enumerate(columns):
        unread = np.isnan(values_RC[:, place])
        cells = table.text(column)[unread].str.casefold() if unread.any() else pd.Series(dtype=str)
        counts.append(sum(not (_INFINITE.fullmatch(cell) or cell in NOTHING) for cell in cells))
    return counts


def _read_values(table: Table, columns: Sequence[int], sign: str) -> np.ndarray:
    """Read cells as numbers.

    What a file has as 1.234 is text: with a decimal comma its point parts thousands. What a frame
    holds as a number is one.
    """
    values_RC = np.empty((table.num_rows, len(columns)))
    texts = table.all_text() if sign == "," else None
    for place, column in enumerate(columns):
        cells = table.cells(column)
        as_text = table.body and sign == "," and pd.api.types.is_float_dtype(cells)
        if is_number(cells) and not as_text:
            values_RC[:, place] = cells.to_numpy(np.float64, na_value=np.nan)
        else:
            text = table.text(column) if texts is None else texts.iloc[:, column]
            values_RC[:, place] = _numbers(text, sign)
    return values_RC


def _numbers(text: pd.Series, sign: str) -> np.ndarray:
    if sign == ",":
        grouped = text.str.fullmatch(POINT_GROUPS).to_numpy(bool)
        plain = text.where(~grouped, text.str.replace(".", "", regex=False))
        # a point that is left is no decimal sign here
        plain = plain.where(~plain.str.contains(".", regex=False), "")
        plain = plain.str.replace(",", ".", regex=False)
    else:
        grouped = text.str.fullmatch(COMMA_GROUPS).to_numpy(bool)
        plain = text.where(~grouped, text.str.replace(",", "", regex=False))
    valid = plain.str.fullmatch(NUMBER).to_numpy(bool)
    values = np.full(len(text), np.nan)
    values[valid] = plain[valid].to_numpy(str).astype(np.float64)
    return values


def _bad_cells(table: Table, bad: Sequence[tuple[int, int]]) -> DataError:
    shown: list[str] = []
    for row, column in sorted(bad)[:_SHOWN]:
        cell = table.text(column).iloc[row]
        empty = cell == "" or table.cells(column).iloc[row] is pd.NA
        held = "is empty" if empty else f"is {cell!r}"
        shown.append(f"{table.where([row])}, column {table.columns[column]!r} {held}")
    more = f" and {len(bad) - _SHOWN} more cells" if len(bad) > _SHOWN else ""
    counts = Counter(column for _, column in bad)
    whole = [table.columns[column] for column, n in counts.items() if n == table.num_rows]
    hint = (
        f"; column {', '.join(map(repr, whole))} has no number at all: remove it, or name what "
        "is to be forecast with --data.targets (many series in one file go into the columns "
        "unique_id, ds, y)"
        if whole
        else "; fill, interpolate or remove them"
        + (
            ", or set --data.missing interpolate or --data.missing mask"
            if _nothing(table, range(len(table.columns)), np.array(sorted(bad)[:_SHOWN])).any()
            else ""
        )
    )
    return DataError(
        f"{table.label}: channels must hold finite numbers, but {'; '.join(shown)}{more}{hint}"
    )
