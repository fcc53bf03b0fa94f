"""Forecasts of frames whose time counts steps, without a calendar."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.made import melted, wide_frame
from tsattn.errors import DataError
from tsattn.forecast import Forecaster


@pytest.fixture(scope="session")
def counting(train: Callable[..., Path]) -> Forecaster:
    """DLinear on a wide frame whose time counts in steps of 5."""
    return Forecaster.load(train(wide_frame().assign(date=np.arange(120) * 5)))


def test_counted_steps_go_on_as_integers(counting: Forecaster, wide: Forecaster) -> None:
    frame = wide_frame(30).assign(date=np.arange(30) * 5 + 1000)
    made = counting.predict(frame)
    assert made["date"].tolist() == [1150, 1155, 1160, 1165]
    assert made["date"].dtype == np.int64
    scored = counting.backtest(frame, windows=2, step=1)
    assert scored.scores("window")["cutoff"].tolist() == [1120, 1125] * 2
    long = counting.predict(melted(frame))
    assert long["ds"].tolist() == [1150, 1155, 1160, 1165] * 3
    pl = pytest.importorskip("polars")
    again = counting.predict(pl.DataFrame({name: frame[name].to_numpy() for name in frame}))
    assert again["date"].to_list() == [1150, 1155, 1160, 1165]


def test_counted_steps_and_timestamps_do_not_mix(counting: Forecaster, wide: Forecaster) -> None:
    with pytest.raises(DataError, match="timestamps, but the network was trained on counted"):
        counting.predict(wide_frame())
    with pytest.raises(DataError, match="counted steps, but the network was trained on timest"):
        wide.predict(wide_frame().assign(date=range(120)))
    with pytest.raises(DataError, match="is 7, that of the training 5"):
        counting.predict(wide_frame().assign(date=np.arange(120) * 7))


@pytest.mark.parametrize("first", [1500, 1900, 20_200_101, -40])
def test_what_looks_like_years_or_dates_is_counted_where_the_training_counted(
    counting: Forecaster, first: int, tmp_path: Path
) -> None:
    frame = wide_frame(20).assign(date=np.arange(20) * 5 + first)
    ahead = [first + 100 + 5 * step for step in range(4)]
    made = counting.predict(frame)
    assert made["date"].tolist() == ahead
    frame.to_csv(tmp_path / "own.csv", index=False)
    pd.testing.assert_frame_equal(counting.predict(tmp_path / "own.csv"), made)
    assert counting.predict(melted(frame))["ds"].tolist() == ahead * 3


def test_years_stay_years_where_the_training_had_dates(train: Callable[..., Path]) -> None:
    frame = wide_frame().assign(date=[str(1800 + year) for year in range(120)])
    made = Forecaster.load(train(frame)).predict(frame.iloc[-20:])
    assert pd.DatetimeIndex(made["date"]).year.tolist() == [1920, 1921, 1922, 1923]
