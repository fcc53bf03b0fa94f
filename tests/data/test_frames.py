"""Frames of pandas and polars, and what their index says."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Panel, load_panel
from tsattn.data.frames import plain_frame
from tsattn.errors import DataError


def wide(rows: int = 30) -> pd.DataFrame:
    times = pd.date_range("2020-01-01", periods=rows, freq="h")
    return pd.DataFrame({"date": times, "a": np.arange(rows) * 1.0, "b": 1.5})


def long() -> pd.DataFrame:
    frame = wide().melt(id_vars="date", var_name="unique_id", value_name="y")
    return frame.rename(columns={"date": "ds"})


def require_equal(panel: Panel, expected: Panel) -> None:
    assert (panel.channels, panel.ids) == (expected.channels, expected.ids)
    for one, other in zip(panel.series, expected.series, strict=True):
        assert one.times.tolist() == other.times.tolist()
        np.testing.assert_array_equal(one.values_RC, other.values_RC)


INDEXED = {
    "time": wide().set_index("date"),
    "time and a column of it": wide().set_index("date", drop=False),
    "the same without a name": wide().set_index("date", drop=False).rename_axis(None),
    "the same beside text": wide()
    .set_index("date", drop=False)
    .assign(date=wide()["date"].astype(str).to_numpy()),
    "periods and a column of times": wide().set_index(pd.PeriodIndex(wide()["date"], freq="h")),
    "numbers": wide().set_index(np.arange(30)[::-1]),
}


@pytest.mark.parametrize("case", INDEXED)
def test_an_index_of_timestamps_is_the_time_column(case: str) -> None:
    require_equal(load_panel(INDEXED[case]), load_panel(wide()))


@pytest.mark.parametrize("levels", ["ds", "unique_id", ["unique_id", "ds"], ["ds", "unique_id"]])
def test_columns_of_a_long_frame_may_be_its_index(levels: Any) -> None:
    require_equal(load_panel(long().set_index(levels)), load_panel(long()))


def test_only_an_index_of_time_alone_counts_as_one() -> None:
    assert [plain_frame(one)[1] for one in INDEXED.values()] == [True, *[False] * 5]
    assert not plain_frame(long().set_index(["unique_id", "ds"]))[1]


@pytest.mark.parametrize("column", ["2020-01-02", "not a time", 7.5])
@pytest.mark.parametrize("name", ["date", None])
def test_an_index_and_a_column_that_differ_are_both_named(column: Any, name: str | None) -> None:
    frame = wide().set_index("date", drop=False).rename_axis(name).assign(date=column)
    unnamed = " without a name" if name is None else ""
    expected = re.escape(f"an index of timestamps{unnamed}, and a column 'date'; drop the column")
    with pytest.raises(DataError, match=expected):
        load_panel(frame)


def test_polars_frames_are_data() -> None:
    pl = pytest.importorskip("polars")
    given = pl.DataFrame({name: wide()[name].to_numpy() for name in wide()})
    require_equal(load_panel(given), load_panel(wide()))
    require_equal(load_panel(given.lazy()), load_panel(wide()))
    with pytest.raises(DataError, match="a polars Expr is no frame"):
        load_panel(pl.col("a"))


def test_what_is_no_data_is_refused_by_its_type() -> None:
    given: Any = {"a": [1]}
    with pytest.raises(DataError, match="dict is no dataset; expected a name of the catalog"):
        load_panel(given)
