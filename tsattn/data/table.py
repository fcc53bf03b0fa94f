"""From the bytes of a delimited text file to named columns whose cells can be traced to lines."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed, plural
from tsattn.data.decoding import decode
from tsattn.data.delimiters import (
    DELIMITERS,
    delimiter_sign,
    quoted_records,
    recognise_delimiter,
    refuse_endless,
)
from tsattn.data.integers import integer_text
from tsattn.data.panel import Step
from tsattn.data.steps import step_text
from tsattn.errors import DataError

_SHOWN = 8
# pandas reads decimals exactly by default from 3.1 on, and before when asked
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT_DECIMALS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}
_BLANK = " \t"


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a file or a frame, before they mean anything.

    Attributes:
        label: What messages call the source.
        columns: Header cells.
        frame: Columns by position, as numbers where every cell is a plain number, else as text.
        positions: Line of every row in the file, counted from 1; for a frame the row, from 0.
        unit: What a position counts, ``line`` or ``row``.
        delimiter: Sign between the cells, empty for a frame.
        body: Text of the data rows, empty where ``frame`` holds the text already.
        width: Most cells that a row of the body has.
        notes: What was recognised.
        integers: Whether the time column counts steps, see `tsattn.data.integers`.
        offset: What the timestamps are ahead of UTC, where the time column says so.
    """

    label: str
    columns: tuple[str, ...]
    frame: pd.DataFrame
    positions: np.ndarray
    unit: str = "line"
    delimiter: str = ""
    body: str = ""
    width: int = 0
    notes: tuple[str, ...] = ()
    integers: bool = False
    offset: pd.Timedelta | None = None

    @property
    def num_rows(self) -> int:
        """Number of data rows."""
        return len(self.frame)

    @property
    def lowered(self) -> tuple[str, ...]:
        """Header cells in lower case."""
        return tuple(name.casefold() for name in self.columns)

    def cells(self, column: int) -> pd.Series:
        """Return one column by its position, numbers as numbers."""
        return self._columns[column]

    @cached_property
    def _columns(self) -> list[pd.Series]:
        """Every column; taking one out of a frame takes longer than reading it."""
        return [cells for _, cells in self.frame.items()]

    def text(self, column: int, rows: int | None = None) -> pd.Series:
        """Return the cells of one column as the text that the file has, stripped of blanks.

        Args:
            column: Position of the column.
            rows: How many rows from the front; None for all.
        """
        cells = self.cells(column).iloc[:rows]
        if self.body and pd.api.types.is_numeric_dtype(cells):
            parsed = _parse(
                self.body, self.delimiter, self.width, text=True, only=[column], rows=rows
            )
            cells = parsed[column]
        return as_text(cells)

    def all_text(self) -> pd.DataFrame:
        """Return every cell as the text that the file has, stripped of blanks."""
        frame = self.frame
        if self.body:
            frame = _parse(self.body, self.delimiter, self.width, text=True)
        return frame.apply(as_text)

    def take(self, rows: np.ndarray) -> "Table":
        """Return the table with some of its rows, by their positions."""
        lines = self.body.split("\n") if self.body else []
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            positions=self.positions[rows],
            body="\n".join(lines[row] for row in rows) if lines else "",
        )

    def stamp(self, time: pd.Timestamp) -> str:
        """Return a timestamp as messages show it: a counted step as its number."""
        return integer_text(time) if self.integers else str(time)

    def apart(self, step: Step) -> str:
        """Return the distance of two timestamps as messages show it."""
        if self.integers and isinstance(step, pd.Timedelta):
            return f"{step.total_seconds():g}"
        return step_text(step)

    def where(self, rows: Sequence[int] | np.ndarray) -> str:
        """Name rows as people find them: ``lines 5, 9 and 4 more``."""
        indices = list(rows)
        shown = listed(indices, lambda index: str(self.positions[index]), most=_SHOWN)
        return f"{plural(len(indices), self.unit)} {shown}"


def read_table(data: bytes, label: str, delimiter: str | None) -> Table:
    """Read a delimited text file.

    Args:
        data: The file's bytes.
        label: What messages call the file.
        delimiter: Sign or name (``tab``) between cells; None recognises it.

    Raises:
        DataError: The file is empty, binary, ragged, without rows or without a usable header, or
            its delimiter cannot be told.
    """
    text, notes = decode(data, label)
    if not text.strip():
        raise DataError(
            f"{label} is empty; expected a header line (a time column, then channels) and data rows"
        )
    sign = recognise_delimiter(text, label) if delimiter is None else delimiter_sign(delimiter)
    if '"' in text:
        lines, records = quoted_records(text, sign, label)
        counts = [len(record) for record in records[1:]]
        refuse_endless(counts, lines[1:], len(records[0]), label)
        header, frame, body = records[0], pd.DataFrame(records[1:], dtype=object), ""
        frame = frame.fillna("")
    else:
        kept = [
            (line, row) for line, row in enumerate(text.split("\n"), 1) if row.strip(_BLANK + sign)
        ]
        lines = [line for line, _ in kept]
        rows = [row for _, row in kept]
        header, body = rows[0].split(sign), "\n".join(rows[1:])
        counts = [row.count(sign) + 1 for row in rows[1:]]
        refuse_endless(counts, lines[1:], len(header), label)
        frame = _parse(body, sign, max(counts)) if counts else pd.DataFrame()
    header = [cell.strip() for cell in header]
    if not counts:
        raise DataError(
            f"{label} has a header line and no data rows; expected rows below the header"
        )
    _check_ragged(frame, counts, lines[1:], header, label, sign)
    width = _check_header(header, frame, label, sign)
    return Table(
        label=label,
        columns=tuple(header[:width]),
        frame=frame.iloc[:, :width],
        positions=np.asarray(lines[1:]),
        delimiter=sign,
        body=body,
        width=max(counts),
        notes=(*notes, f"delimiter: {DELIMITERS.get(sign, sign)}"),
    )


def as_text(cells: pd.Series) -> pd.Series:
    """Return cells as text without blanks around it, ``NaN`` where there is none."""
    if cells.isna().any():
        cells = cells.astype(object).where(cells.notna(), "NaN")
    return cells.astype(str).str.strip()


def _parse(
    body: str,
    sign: str,
    width: int,
    *,
    text: bool = False,
    only: list[int] | None = None,
    rows: int | None = None,
) -> pd.DataFrame:
    return pd.read_csv(
        io.StringIO(body),
        sep=sign,
        header=None,
        names=list(range(width)),
        usecols=only,
        nrows=rows,
        index_col=False,
        dtype=str if text else None,
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        low_memory=False,
        **EXACT_DECIMALS,
    )


def _check_header(header: list[str], frame: pd.DataFrame, label: str, sign: str) -> int:
    """Return how many columns count; a trailing delimiter makes an empty one that does not."""
    width = len(header)
    while width > 1 and not header[width - 1] and _is_blank(frame.iloc[:, width - 1]):
        width -= 1
    names = header[:width]
    check_names(names, label)
    if width < 2:
        raise DataError(
            f"{label}: no channels: the header has one column {header[0]!r}; expected a time "
            f"column and at least one channel separated by {DELIMITERS.get(sign, sign)}"
        )
    return width


def check_names(names: Sequence[str], label: str) -> None:
    """Raise where two columns share a name.

    Raises:
        DataError: With the names and the columns, counted from 1.
    """
    repeated = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if repeated:
        places = ", ".join(
            f"{name!r} (columns {', '.join(str(i) for i, n in enumerate(names, 1) if n == name)})"
            for name in repeated[:_SHOWN]
        )
        raise DataError(
            f"{label}: duplicate column names: {places}; give every column its own name"
        )


def _is_blank(cells: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(cells):
        return False
    return not cells.astype(str).str.strip().any()


def _check_ragged(
    frame: pd.DataFrame,
    counts: Sequence[int],
    lines: Sequence[int],
    header: list[str],
    label: str,
    sign: str,
) -> None:
    width = len(header)
    beyond = [
        column for column in range(width, frame.shape[1]) if not _is_blank(frame.iloc[:, column])
    ]
    most = max(beyond) + 1 if beyond else width
    ragged = [
        f"line {line} has {count}"
        for line, count in zip(lines, counts, strict=True)
        if count < width or (beyond and width < count <= most)
    ]
    if ragged:
        more = f" and {len(ragged) - _SHOWN} more lines" if len(ragged) > _SHOWN else ""
        comma = "; if the comma is the decimal sign, separate columns by semicolons"
        raise DataError(
            f"{label}: {', '.join(ragged[:_SHOWN])} cells{more}, but the header has {width}; mend "
            f"these lines{comma if sign == ',' else ''}"
        )
