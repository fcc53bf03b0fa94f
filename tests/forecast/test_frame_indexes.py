"""Forecasts of frames with the time or the series in their index, and of polars."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.made import long_frame, wide_frame
from tsattn.errors import DataError
from tsattn.forecast import Forecaster


def test_time_may_be_index_and_column(wide: Forecaster) -> None:
    frame = wide_frame()
    made = wide.predict(frame.set_index("date", drop=False))
    pd.testing.assert_frame_equal(made, wide.predict(frame))
    moved = frame.set_index("date", drop=False).shift(1).bfill()
    with pytest.raises(DataError, match="an index of timestamps, and a column 'date'"):
        wide.predict(moved)


@pytest.mark.parametrize("levels", ["unique_id", ["unique_id", "ds"]])
def test_columns_of_a_long_frame_may_be_its_index(long: Forecaster, levels: Any) -> None:
    made = long.predict(long_frame().set_index(levels))
    pd.testing.assert_frame_equal(made, long.predict(long_frame()))


def test_series_that_are_numbers_with_a_fraction_are_explained(train: Callable[..., Path]) -> None:
    frame = long_frame()
    frame = frame.assign(unique_id=frame["unique_id"].str[1:].astype(int))
    forecaster = Forecaster.load(train(frame))
    with pytest.raises(DataError, match=r"'0.0' and '0' are one number.*astype\(int\)"):
        forecaster.predict(frame.astype({"unique_id": float}))


@pytest.mark.parametrize("offset", ["+01:00", "-03:30", "Z"])
def test_text_with_an_offset_goes_through_polars(wide: Forecaster, offset: str) -> None:
    pl = pytest.importorskip("polars")
    frame = wide_frame()
    text = frame["date"].dt.strftime("%Y-%m-%d %H:%M:%S") + offset
    given = {"date": text.tolist(), **{name: frame[name].to_numpy() for name in "abc"}}
    made = wide.predict(pl.DataFrame(given))
    expected = wide.predict(frame.assign(date=text))
    for name in "abc":
        np.testing.assert_array_equal(made[name].to_numpy(), expected[name])
    moments = pd.to_datetime([str(one) for one in made["date"]], utc=True)
    assert moments.tolist() == pd.to_datetime(expected["date"], utc=True).tolist()
