"""The decimal sign of a file: it is proved, never guessed."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tsattn.data.table import Table
from tsattn.errors import DataError

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# as a number with decimal comma, possibly with points between thousands: 1,5 and 1.234,5
_DECIMAL_COMMA = re.compile(
    r"[+-]?(?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]*),[0-9]+(?:[eE][+-]?[0-9]+)?"
)
# as a number with commas between thousands: 1,234 and 1,234.5
COMMA_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")
# as a number with points between thousands: 1.234 and 1.234,5
POINT_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?:,[0-9]*)?")
_NUMBERS = frozenset({"floating", "integer", "mixed-integer-float"})

Example = tuple[int, int, str]  # row, column, cell
_KINDS = ("comma", "point", "either")  # what a cell proves
Evidence = tuple[Example | None, Example | None, Example | None]


def is_number(cells: pd.Series) -> bool:
    """Return whether a column holds numbers, not text that reads as such."""
    if cells.dtype == object:
        return pd.api.types.infer_dtype(cells, skipna=True) in _NUMBERS
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def decimal_sign(
    table: Table, columns: Sequence[int], given: str | None, beside: Sequence[int] = ()
) -> tuple[str, tuple[str, ...]]:
    """Return the decimal sign of a table, and notes on it.

    Args:
        table: The file or frame.
        columns: Positions of the channels.
        given: What the user has said, or None.
        beside: Columns that decide where the channels leave it open.

    Raises:
        DataError: The sign that was given cannot be one, or nothing proves which it is.
    """
    if given is not None:
        if given not in (".", ","):
            raise DataError(f"decimal sign {given!r} is unknown; expected '.' or ','")
        if given == table.delimiter:
            raise DataError(
                f"{table.label}: {given!r} cannot be both delimiter and decimal sign; set "
                "--data.delimiter or --data.decimal"
            )
        return given, ()
    comma, point, either = _evidence(table, columns)
    if either and beside and not (comma or point):
        comma, point, _ = _evidence(table, beside)
    if comma and point:
        raise DataError(
            f"{table.label}: the decimal sign is not the same everywhere: {_place(table, comma)} "
            f"has a comma, {_place(table, point)} a point; write all numbers alike"
        )
    if comma:
        grouped = "," not in comma[2]
        proof = f"{'points between thousands ' if grouped else ''}as in {comma[2]!r}"
        return ",", (f"decimal sign: comma, {proof}",)
    if point or not either:
        grouped = any(cell is not None and "," in cell[2] for cell in (point, either))
        return ".", (("decimal sign: point, commas between thousands",) if grouped else ())
    raise DataError(
        f"{table.label}: {_place(table, either)} may mean a thousand or a fraction, and no other "
        "number decides; set --data.decimal , (fraction after a comma) or --data.decimal . (after "
        "a point)"
    )


def _place(table: Table, example: Example) -> str:
    row, column, cell = example
    return f"{cell!r} ({table.where([row])}, column {table.columns[column]!r})"


def _evidence(table: Table, columns: Sequence[int]) -> Evidence:
    """Return cells that prove a decimal comma, prove a point, and may be either.

    Cells without a comma are looked at only where they matter, since that takes the text of every
    number: where the others leave it open, or where a semicolon leaves the comma to the numbers.
    """
    comma, point, either = _comma_evidence(table, columns)
    if (either or table.delimiter == ";") and not (comma or point):
        comma, point, pointed = _point_evidence(table, columns)
        either = either or pointed
    return comma, point, either


def _comma_evidence(table: Table, columns: Sequence[int]) -> Evidence:
    """Return what cells with a comma prove."""
    found: dict[str, Example | None] = dict.fromkeys(_KINDS)
    for column in columns:
        if is_number(table.cells(column)):
            continue
        text = table.text(column)
        text = text[text.str.contains(",", regex=False)]
        as_comma = text.str.fullmatch(_DECIMAL_COMMA).to_numpy(bool)
        as_point = text.str.fullmatch(COMMA_GROUPS).to_numpy(bool)
        _keep_first(found, column, text, as_comma, as_point)
    return found["comma"], found["point"], found["either"]


def _point_evidence(table: Table, columns: Sequence[int]) -> Evidence:
    """Return what cells with points and no comma prove; of a comma and a point the latter."""
    found: dict[str, Example | None] = dict.fromkeys(_KINDS)
    for column, text in _written(table, columns):
        pointed = text.str.contains(".", regex=False) & ~text.str.contains(",", regex=False)
        text = text[pointed.to_numpy(bool)]
        as_comma = text.str.fullmatch(POINT_GROUPS).to_numpy(bool)
        as_point = text.str.fullmatch(NUMBER).to_numpy(bool)
        _keep_first(found, column, text, as_comma, as_point)
        if found["point"]:
            return None, found["point"], None
    return found["comma"], None, found["either"]


def _keep_first(
    found: dict[str, Example | None],
    column: int,
    text: pd.Series,
    as_comma: np.ndarray,
    as_point: np.ndarray,
) -> None:
    """Keep the first cell of each kind, given which cells are numbers with either sign."""
    masks = (as_comma & ~as_point, as_point & ~as_comma, as_comma & as_point)
    for kind, mask in zip(_KINDS, masks, strict=True):
        if found[kind] is None and mask.any():
            first = text[mask]
            found[kind] = (int(first.index[0]), column, str(first.iloc[0]))


def _written(table: Table, columns: Sequence[int]) -> Iterator[tuple[int, pd.Series]]:
    """Yield columns whose cells may have points as written, first those that are text already.

    What a frame holds as a number is not written.
    """
    floats: list[int] = []
    for column in columns:
        cells = table.cells(column)
        if pd.api.types.is_float_dtype(cells):
            floats.append(column)
        elif not (pd.api.types.is_bool_dtype(cells) or is_number(cells)):
            text = table.text(column)
            if not table.delimiter and cells.dtype == object:  # a frame may mix both in a column
                text = text[[isinstance(cell, str) for cell in cells]]
            yield column, text
    if floats and table.body:
        texts = table.all_text()
        for column in floats:
            yield column, texts.iloc[:, column]
