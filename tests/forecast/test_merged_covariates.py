"""Covariates of rows that share a timestamp are merged as the values to forecast are."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.conftest import Train
from tests.forecast.test_covariates import HORIZON, LAST, NAMES, make_long, make_wide
from tests.training.signals import patchtst
from tsattn.errors import DataError
from tsattn.forecast import Forecaster

COLUMNS = ["a", "b", "price", "sun", "warm"]


def doubled(frame: pd.DataFrame, rows: list[int], how: str) -> pd.DataFrame:
    """Return a frame in which rows come twice, such that ``how`` makes the given frame of it."""
    if how == "mean":
        low, high = frame.loc[rows].copy(), frame.loc[rows].copy()
        numbers = [name for name in COLUMNS if name in frame] + ["y"] * ("y" in frame)
        low[numbers], high[numbers] = low[numbers] - 32, high[numbers] + 32
        parts = [low, high]
    else:
        wrong = frame.loc[rows].copy()
        for name in ("a", "y", "price", "sun", "warm", "size"):
            if name in frame:
                wrong[name] = 50.0
        parts = [frame.loc[rows], wrong] if how == "first" else [wrong, frame.loc[rows]]
    twice = pd.concat(parts, keys=range(2)).reset_index(level=0, names="order")
    once = frame.drop(index=rows).assign(order=0)
    whole = pd.concat([once, twice]).sort_index(kind="stable")
    whole = whole.reset_index(names="row").sort_values(["row", "order"], kind="stable")
    return whole.drop(columns=["row", "order"]).reset_index(drop=True)


@pytest.mark.parametrize("how", ["first", "last", "mean"])
def test_rows_that_come_twice_have_the_covariates_that_count(train: Train, how: Any) -> None:
    forecaster = Forecaster.load(train(make_wide(), build=patchtst, **NAMES, duplicates=how))
    frame = make_wide(7)
    history = frame.iloc[:LAST]
    ahead = frame[["date", "price", "sun"]].iloc[LAST : LAST + HORIZON]
    expected = forecaster.predict(history, future=ahead)
    twice = doubled(history, [40, LAST - 5, LAST - 1], how)
    assert len(twice) == LAST + 3
    made = forecaster.predict(twice, future=ahead)
    np.testing.assert_allclose(made.iloc[:, 1:], expected.iloc[:, 1:], rtol=1e-6)
    whole = frame.iloc[: LAST + HORIZON]
    scores = [
        forecaster.backtest(one, 2, 2).scores("total")["mse"]
        for one in (whole, doubled(whole, [LAST - 7, LAST, LAST + 2], how))
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
    # the row that does not count is read all the same
    if how != "mean":
        place = twice.index[twice["date"] == frame["date"][LAST - 1]][int(how == "first")]
        twice.loc[place, "price"] = np.nan
        with pytest.raises(DataError, match="covariates must hold"):
            forecaster.predict(twice, future=ahead)


def test_covariates_of_series_are_merged_too(train: Train) -> None:
    data = {**NAMES, "static": ["size"], "duplicates": "last"}
    forecaster = Forecaster.load(train(make_long(), build=patchtst, **data))
    frame = make_long()
    rows = [int(frame.index[frame["unique_id"] == one][-6]) for one in ("s0", "s2")]
    expected, made = (
        forecaster.backtest(one).forecast_WHK["original"]
        for one in (frame, doubled(frame, rows, "last"))
    )
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_what_is_constant_stays_so_in_the_mean_of_many_rows(train: Train) -> None:
    frame = make_long().assign(size=lambda one: 0.1 + one["size"])
    data = {**NAMES, "static": ["size"], "duplicates": "mean"}
    forecaster = Forecaster.load(train(frame, build=patchtst, **data))
    rows = [int(frame.index[frame["unique_id"] == one][-6]) for one in ("s0", "s1")]
    often = pd.concat([frame, *[frame.loc[rows]] * 2]).sort_index(kind="stable")
    expected, made = (forecaster.backtest(one).forecast_WHK["original"] for one in (frame, often))
    np.testing.assert_allclose(made, expected, rtol=1e-6)
