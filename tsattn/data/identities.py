"""Which rows of a long table belong to which series."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.table import Table, as_text
from tsattn.errors import DataError


@dataclass(frozen=True, eq=False)
class Identities:
    """The series of a long table, in the order in which they appear.

    Attributes:
        names: their ``unique_id`` as text, stripped of blanks.
        labels: the same as the table's owner writes it, of the first row of each: cells of a frame,
            and of a file numbers only where they are written as in the file (``001`` is text).
        groups: the rows of each, in the order of the table.
    """

    names: tuple[str, ...]
    labels: tuple[Any, ...]
    groups: list[np.ndarray]


def identities_of(table: Table, column: int) -> Identities:
    """Tell the series of a long table apart.

    Args:
        table: the table.
        column: position of ``unique_id``.

    Raises:
        DataError: rows whose ``unique_id`` is empty, or missing in a frame.
    """
    codes_R, names = _factorized(table, column)
    empty = _missing(table, column)
    if "" in names:
        empty = empty | (codes_R == names.index(""))
    if empty.any():
        nameless = np.flatnonzero(empty)
        raise DataError(f"{table.label}: unique_id is empty in {table.where(nameless)}; fill it")
    by_series = np.argsort(codes_R, kind="stable")
    ends = np.cumsum(np.bincount(codes_R)).tolist()
    groups = [by_series[first:last] for first, last in pairwise([0, *ends])]
    firsts = table.cells(column).iloc[[group[0] for group in groups]]
    labels = tuple(firsts.tolist())
    parsed = bool(table.body) and pd.api.types.is_numeric_dtype(firsts)
    if parsed and tuple(map(str, labels)) != names:
        labels = names
    return Identities(names, labels, groups)


def _missing(table: Table, column: int) -> np.ndarray:
    """Return which rows of a frame have no value; what a file holds is text, ``NA`` too."""
    if table.body:
        return np.zeros(table.num_rows, dtype=bool)
    return table.cells(column).isna().to_numpy(bool)


def _factorized(table: Table, column: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the series of every row, and their names.

    Rows of a series mostly stand together, so text is compared with the row before, and only what
    begins a run of equal cells is looked up; each distinct cell is stripped once.
    """
    cells = table.cells(column)
    if isinstance(cells.dtype, pd.StringDtype | pd.CategoricalDtype):
        differs = pd.Series(cells.array[1:] != cells.array[:-1]).fillna(True).to_numpy(bool)
        starts = np.concatenate([[0], np.flatnonzero(differs) + 1])
        of_run, distinct = pd.factorize(cells.iloc[starts], use_na_sentinel=False)
        of_text, names = pd.factorize(as_text(pd.Series(distinct)))
        codes_R = np.repeat(of_text[of_run], np.diff(starts, append=len(cells)))
    else:  # cells that are equal, such as 1 and True, may be written in two ways
        codes_R, names = pd.factorize(table.text(column))
    return codes_R, tuple(str(name) for name in names.tolist())
