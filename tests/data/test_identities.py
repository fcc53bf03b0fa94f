"""Series of a long table: what an independent, slow reading of the same cells gives."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsattn.data.identities import identities_of
from tsattn.data.own import frame_table
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


@pytest.mark.parametrize("dtype", ["str", "string", "category"])
def test_missing_names_are_one_series_called_nan(dtype: str) -> None:
    cells = pd.Series(["a", None, None, "b", np.nan], dtype=dtype)
    found = identities_of(table_of(cells), 0)
    assert found.names == ("a", "NaN", "b")
    assert found.groups[1].tolist() == [1, 2, 4]


def test_empty_names_are_refused_with_their_rows() -> None:
    cells = pd.Series(["a", "", "b", "  "], dtype="str")
    with pytest.raises(DataError, match="unique_id is empty in rows 1, 3"):
        identities_of(table_of(cells), 0)
