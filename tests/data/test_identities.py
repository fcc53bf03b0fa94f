"""Series of a long table: what an independent, slow reading of the same cells gives."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsattn.data import load_panel
from tsattn.data.identities import identities_of
from tsattn.data.own import frame_table
from tsattn.data.table import read_table
from tsattn.errors import DataError

CELLS = st.lists(st.sampled_from(["a", "a ", "b", " b", "1", "01", "A"]), min_size=1, max_size=30)


def table_of(cells: pd.Series):
    return frame_table(pd.DataFrame({"unique_id": cells, "y": 1.0}))


@pytest.mark.parametrize("dtype", [None, "str", "string", "category", "object"])
@settings(max_examples=60, deadline=None)
@given(cells=CELLS)
def test_names_labels_and_rows_are_those_of_a_slow_reading(
    dtype: str | None, cells: list[str]
) -> None:
    series = pd.Series(cells, dtype=dtype)
    found = identities_of(table_of(series), 0)
    expected: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        expected.setdefault(cell.strip(), []).append(row)
    assert found.names == tuple(expected)
    assert [group.tolist() for group in found.groups] == list(expected.values())
    assert found.labels == tuple(cells[rows[0]] for rows in expected.values())


@pytest.mark.parametrize("cells", [[3, 3, 1], [3.0, 3.0, 1.5], [True, 1, "1"]])
def test_numbers_and_mixed_cells_are_told_apart_as_they_are_written(cells: list[object]) -> None:
    found = identities_of(table_of(pd.Series(cells)), 0)
    assert found.names == tuple(dict.fromkeys(str(cell) for cell in cells))
    assert found.labels == tuple(next(c for c in cells if str(c) == name) for name in found.names)


@pytest.mark.parametrize("dtype", ["str", "string", "category", "object"])
def test_missing_names_are_refused_with_their_rows(dtype: str) -> None:
    cells = pd.Series(["a", None, None, "b", np.nan, "NaN"], dtype=dtype)
    with pytest.raises(DataError, match="unique_id is empty in rows 1, 2, 4;"):
        identities_of(table_of(cells), 0)


@pytest.mark.parametrize("cells", [pd.Series([1.0, np.nan]), pd.Series([1, None], dtype="Int32")])
def test_missing_numbers_are_no_series_in_training_either(cells: pd.Series) -> None:
    frame = pd.DataFrame({"unique_id": cells.repeat(20), "y": 1.0})
    frame.insert(1, "ds", [*pd.date_range("2020", periods=20)] * 2)
    with pytest.raises(DataError, match=r"unique_id is empty in rows 20, 21, .* and 12 more; fill"):
        load_panel(frame)


def rows_of_file(*cells: str, quoted: bool = False) -> bytes:
    sign = '"' if quoted else ""
    return "\n".join(["unique_id,ds,y", *(f"{sign}{one}{sign},2020,1" for one in cells)]).encode()


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("cells", [("001", "1"), ("1.10", "1.1"), ("1", "2.0"), ("1e3", "TRUE")])
def test_a_file_calls_its_series_as_it_writes_them(cells: tuple[str, str], quoted: bool) -> None:
    found = identities_of(read_table(rows_of_file(*cells, quoted=quoted), "own.csv", None), 0)
    assert found.names == found.labels == cells


def test_numbers_of_a_file_stay_numbers_where_they_are_written_so() -> None:
    found = identities_of(read_table(rows_of_file("3", "12", "3"), "own.csv", None), 0)
    assert found.names == ("3", "12")
    assert found.labels == (3, 12)


def test_a_series_of_a_file_may_be_called_na() -> None:
    for cells in (("NA", "1"), ("nan", "1"), ("NaN", "None")):
        found = identities_of(read_table(rows_of_file(*cells), "own.csv", None), 0)
        assert found.names == found.labels == cells


def test_empty_names_are_refused_with_their_rows() -> None:
    cells = pd.Series(["a", "", "b", "  "], dtype="str")
    with pytest.raises(DataError, match="unique_id is empty in rows 1, 3"):
        identities_of(table_of(cells), 0)
