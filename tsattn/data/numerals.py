"""Numbers from the cells of a file: which sign is the decimal one is proved, never guessed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsattn.data.table import Table
from tsattn.errors import DataError

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# as a number with decimal comma, possibly with points between thousands: 1,5 and 1.234,5
_DECIMAL_COMMA = re.compile(
    r"[+-]?(?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]*),[0-9]+(?:[eE][+-]?[0-9]+)?"
)
# as a number with commas between thousands: 1,234 and 1,234.5
_COMMA_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")
# as a number with points between thousands: 1.234 and 1.234,5
_POINT_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?:,[0-9]*)?")
# cells that say that there is no value
NOTHING = frozenset(
    {"", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil", "missing", "-", "?"}
)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?")
_NUMBERS = frozenset({"floating", "integer", "mixed-integer-float"})
_SHOWN = 6

Example = tuple[int, int, str]  # row, column, cell


def channel_values(
    table: Table,
    columns: Sequence[int],
    decimal: str | None,
    rows: np.ndarray | None = None,
    *,
    allow_missing: bool = False,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the channels of a table.

    Args:
        table: The file or frame.
        columns: Positions of the channels.
        decimal: Decimal sign, ``.`` or ``,``; None recognises it.
        rows: The rows that are needed; what the others hold does not matter. None means all.
        allow_missing: Whether cells may be empty or hold a word of `NOTHING`; they become NaN.
            Other text and infinite numbers are refused all the same.

    Returns:
        float64 rows x channels, finite (or missing) in the rows needed, and notes on what was
        recognised.

    Raises:
        DataError: A cell is no finite number, or the decimal sign cannot be told; with lines,
            columns and what to do.
    """
    sign, notes = _decimal_sign(table, columns, decimal)
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

    Args:
        table: The file or frame.
        names: Columns that may be there.
    """
    places = [place for place, name in enumerate(table.columns) if name in names]
    flags = [place for place in places if pd.api.types.is_bool_dtype(table.cells(place))]
    if not flags:
        return table
    columns = {place: table.cells(place) for place in range(len(table.columns))}
    columns |= {place: columns[place].astype("Int8") for place in flags}
    return replace(table, frame=pd.DataFrame(columns))


def covariate_values(
    table: Table, columns: Sequence[int], decimal: str | None, rows: np.ndarray | None = None
) -> np.ndarray:
    """Read columns as `channel_values` does, and call them covariates where one has no number.

    Raises:
        DataError: A cell is no finite number; with lines, columns and what to do.
    """
    try:
        return channel_values(table, columns, decimal, rows)[0]
    except DataError as error:
        told = str(error).replace("channels must hold", "covariates must hold")
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
        sign, _ = _decimal_sign(table, columns, decimal)
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
        if _is_number(cells) and not as_text:
            values_RC[:, place] = cells.to_numpy(np.float64, na_value=np.nan)
        else:
            text = table.text(column) if texts is None else texts.iloc[:, column]
            values_RC[:, place] = _numbers(text, sign)
    return values_RC


def _is_number(cells: pd.Series) -> bool:
    if cells.dtype == object:
        return pd.api.types.infer_dtype(cells, skipna=True) in _NUMBERS
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _numbers(text: pd.Series, sign: str) -> np.ndarray:
    if sign == ",":
        grouped = text.str.fullmatch(_POINT_GROUPS).to_numpy(bool)
        plain = text.where(~grouped, text.str.replace(".", "", regex=False))
        # a point that is left is no decimal sign here
        plain = plain.where(~plain.str.contains(".", regex=False), "")
        plain = plain.str.replace(",", ".", regex=False)
    else:
        grouped = text.str.fullmatch(_COMMA_GROUPS).to_numpy(bool)
        plain = text.where(~grouped, text.str.replace(",", "", regex=False))
    valid = plain.str.fullmatch(_NUMBER).to_numpy(bool)
    values = np.full(len(text), np.nan)
    values[valid] = plain[valid].to_numpy(str).astype(np.float64)
    return values


def _decimal_sign(
    table: Table, columns: Sequence[int], given: str | None
) -> tuple[str, tuple[str, ...]]:
    if given is not None:
        if given not in (".", ","):
            raise DataError(f"decimal sign {given!r} is unknown; expected '.' or ','")
        if given == table.delimiter:
            raise DataError(
                f"{table.label}: {given!r} cannot be both delimiter and decimal sign; set "
                "--data.delimiter or --data.decimal"
            )
        return given, ()
    comma, point, either = _comma_evidence(table, columns)
    if (either and not comma) or table.delimiter == ";":
        point_proof, point_either = _point_evidence(table, columns)
        point = point or point_proof
        either = either or (None if comma else point_either)
    if comma and point and "," in point[2]:
        raise DataError(
            f"{table.label}: the decimal sign is not the same everywhere: {_place(table, comma)} "
            f"has a comma, {_place(table, point)} a point; write all numbers alike"
        )
    if comma:
        return ",", (f"decimal sign: comma, as in {comma[2]!r}",)
    if point or not either:
        grouped = point is not None and "," in point[2]
        return ".", (("decimal sign: point, commas between thousands",) if grouped else ())
    raise DataError(
        f"{table.label}: {_place(table, either)} may mean a thousand or a fraction, and no other "
        "number decides; set --data.decimal , (fraction after a comma) or --data.decimal . (after "
        "a point)"
    )


def _place(table: Table, example: Example) -> str:
    row, column, cell = example
    return f"{cell!r} ({table.where([row])}, column {table.columns[column]!r})"


def _comma_evidence(
    table: Table, columns: Sequence[int]
) -> tuple[Example | None, Example | None, Example | None]:
    """Return cells that prove a decimal comma, prove a point, and may be either."""
    found: dict[str, Example | None] = {"comma": None, "point": None, "either": None}
    for column in columns:
        if _is_number(table.cells(column)):
            continue
        text = table.text(column)
        text = text[text.str.contains(",", regex=False)]
        as_comma = text.str.fullmatch(_DECIMAL_COMMA).to_numpy(bool)
        as_point = text.str.fullmatch(_COMMA_GROUPS).to_numpy(bool)
        for kind, mask in (
            ("comma", as_comma & ~as_point),
            ("point", as_point & ~as_comma),
            ("either", as_comma & as_point),
        ):
            if found[kind] is None and mask.any():
                first = text[mask]
                found[kind] = (int(first.index[0]), column, str(first.iloc[0]))
    return found["comma"], found["point"], found["either"]


def _point_evidence(table: Table, columns: Sequence[int]) -> tuple[Example | None, Example | None]:
    """Return a cell whose point is a decimal sign, and one whose point may part thousands."""
    either: Example | None = None
    for column, text in _float_texts(table, columns):
        pointed = text[text.str.contains(".", regex=False)]
        grouped = pointed.str.fullmatch(_POINT_GROUPS).to_numpy(bool)
        if (~grouped).any():
            proof = pointed[~grouped]
            return (int(proof.index[0]), column, str(proof.iloc[0])), None
        if grouped.any() and either is None:
            either = (int(pointed.index[0]), column, str(pointed.iloc[0]))
    return None, either


def _float_texts(table: Table, columns: Sequence[int]) -> Iterator[tuple[int, pd.Series]]:
    floats = [column for column in columns if pd.api.types.is_float_dtype(table.cells(column))]
    if floats and table.body:
        texts = table.all_text()
        for column in floats:
            yield column, texts.iloc[:, column]


def _bad_cells(table: Table, bad: Sequence[tuple[int, int]]) -> DataError:
    shown: list[str] = []
    for row, column in sorted(bad)[:_SHOWN]:
        cell = table.text(column).iloc[row]
        held = "is empty" if cell == "" else f"is {cell!r}"
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
