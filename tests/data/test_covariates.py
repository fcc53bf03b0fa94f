"""Covariates from a file to windows: found by name, standardised by the training, in place."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsattn.data import Prepared, Reading, Windows, calendar_marks, load_panel, prepare
from tsattn.data.covariates import recorded_covariates
from tsattn.errors import DataError
from tsattn.tensors import Covariates

ROWS, CONTEXT, HORIZON = 100, 7, 3


def wide(seed: int = 0) -> pd.DataFrame:
    numbers = np.random.default_rng(seed).normal(size=(ROWS, 4)) * [1, 2, 30, 4] + [0, 5, 100, -3]
    frame = pd.DataFrame(numbers, columns=["a", "b", "price", "warm"])
    frame.insert(0, "date", pd.date_range("2020-01-01", periods=ROWS, freq="h"))
    return frame


def flagged() -> pd.DataFrame:
    return wide().assign(open=np.arange(ROWS) % 3 == 0)


def long(lengths: tuple[int, ...] = (100, 90)) -> pd.DataFrame:
    parts = [
        wide(seed)[:length]
        .rename(columns={"date": "ds", "a": "y"})
        .drop(columns="b")
        .assign(unique_id=f"s{seed}", size=10.0 * seed + 1)
        for seed, length in enumerate(lengths)
    ]
    return pd.concat(parts, ignore_index=True)


def prepared(frame: pd.DataFrame, **names: list[str]) -> Prepared:
    reading = Reading(covariates=tuple(name for given in names.values() for name in given))
    panel = load_panel(frame, reading=reading)
    return prepare(panel, context=CONTEXT, horizon=HORIZON, **names)  # pyright: ignore


def covariates_of(windows: Windows, window: int) -> Covariates:
    covariates = windows[[window]].covariates
    assert covariates is not None
    return covariates


@given(first=st.integers(0, 7), part=st.sampled_from(["train", "val", "test"]))
def test_windows_carry_the_covariates_of_their_own_rows(first: int, part: str) -> None:
    frame = flagged()
    made = prepared(frame, known_future=["price", "open", "hour_of_day"], past=["warm"])
    windows = getattr(made, part)
    batch = windows[[first]]
    start = int(windows.starts_W[first])
    rows = frame.iloc[start : start + CONTEXT + HORIZON]
    train = frame.iloc[: int(0.7 * ROWS)]
    known, past, static = batch.covariates
    for place, name in enumerate(("price", "open")):
        column = train[name].astype(float)
        expected = (rows[name].astype(float) - column.mean()) / column.std(ddof=0)
        np.testing.assert_allclose(known[0, :, place], expected, rtol=1e-5, atol=1e-6)
    marks = calendar_marks(pd.DatetimeIndex(rows["date"]), ["hour_of_day"])
    torch.testing.assert_close(known[0, :, 2:], marks)
    warm = (rows["warm"] - train["warm"].mean()) / train["warm"].std(ddof=0)
    np.testing.assert_allclose(past[0, :, 0], warm[:CONTEXT], rtol=1e-5, atol=1e-6)
    assert past.shape == (1, CONTEXT, 1)
    assert static.shape == (1, 0)
    assert batch.extras["covariates"] is batch.covariates


def test_covariates_are_no_channels_and_are_named_in_the_notes() -> None:
    made = prepared(wide(), known_future=["price"], past=["warm"])
    assert made.panel.channels == ("a", "b")
    assert made.train.values_RC.shape[1] == 2
    assert "covariates: known ahead: price; past: warm" in made.notes
    assert prepared(wide()).train[[0]].covariates is None


def test_long_layout_has_covariates_of_each_series_scaled_together_and_static_ones() -> None:
    frame = long()
    made = prepared(frame, known_future=["price"], past=["warm"], static=["size"])
    assert made.panel.channels == ("y",)
    ends = [border.train[1] for border in made.borders]
    train = pd.concat([frame[: ends[0]], frame[100 : 100 + ends[1]]])["price"]
    windows = made.train
    for window in (0, len(windows) - 1):
        start, covariates = int(windows.starts_W[window]), covariates_of(windows, window)
        expected = (frame["price"][start : start + 10] - train.mean()) / train.std(ddof=0)
        np.testing.assert_allclose(covariates.known_BLG[0, :, 0], expected, rtol=1e-5)
    sizes = torch.stack([covariates_of(windows, window).static_BA for window in (0, -1)])
    torch.testing.assert_close(sizes.flatten(), torch.tensor([-1.0, 1.0]))
    assert "columns not used: warm, size" in prepared(frame, past=["price"]).notes


def test_record_brings_names_and_scales_back() -> None:
    made = prepared(long(), known_future=["price", "day_of_week"], static=["size"])
    assert made.covariates is not None
    again = recorded_covariates(made.covariates.record())
    assert again is not None
    assert again.names == made.covariates.names
    assert again.names.sizes == (2, 0, 1)
    values = np.array([[1.0], [2.0]])
    torch.testing.assert_close(again.static(values), made.covariates.static(values))
    assert recorded_covariates({}) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"past": ["wram"]}, r"no column 'wram' for a covariate \(did you mean 'warm'\?\)"),
        (
            {"past": ["hour_of_day"]},
            "no column 'hour_of_day'.*known_future also takes the calendar",
        ),
        ({"known_future": ["price"], "past": ["price"]}, "'price' named as covariate twice"),
        ({"past": ["a", "b", "price", "warm"]}, "nothing is left to forecast"),
        ({"static": ["price"]}, "static features.*wide layout is one series.*unique_id, ds, y"),
        ({"past": ["date"]}, "covariates must hold finite numbers.*column 'date'"),
    ],
)
def test_names_that_cannot_be_are_refused(names: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepared(wide(), **names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"known_future": ["y"]}, r"nothing is left to forecast; leave out.*\(y\)"),
        ({"static": ["price"]}, "static 'price' changes within series 's0'.*known_future or"),
        ({"past": ["unique_id"]}, "covariates must hold finite numbers"),
        ({"past": ["nothing"]}, "no column 'nothing'"),
    ],
)
def test_names_that_cannot_be_in_a_long_layout_are_refused(
    names: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(long(), **names)


@pytest.mark.parametrize("make", [wide, long])
def test_holes_in_covariates_are_refused_with_row_and_column(make: Any) -> None:
    frame = make()
    frame.loc[17, "warm"] = np.nan
    with pytest.raises(DataError, match=r"covariates must hold.*row 17, column 'warm' is 'NaN'"):
        prepared(frame, past=["warm"])


def test_counted_steps_have_no_calendar_that_is_known_ahead() -> None:
    counted = wide().assign(date=range(len(wide())))
    with pytest.raises(DataError, match=r"counts steps and has no calendar, so 'hour_of_day'"):
        prepared(counted, known_future=["price", "hour_of_day"])
    assert prepared(counted, known_future=["price"]).covariates is not None


def test_a_file_with_true_and_false_is_read(tmp_path: Path) -> None:
    flagged().to_csv(tmp_path / "own.csv", index=False, sep=";", decimal=",")
    reading = Reading(covariates=("open", "price"))
    panel = load_panel(tmp_path / "own.csv", reading=reading)
    made = prepare(panel, context=7, horizon=3, known_future=["open", "price"])
    covariates = made.train[[0]].covariates
    assert covariates is not None
    assert covariates.known_BLG[0, :, 0].unique().numel() == 2
    expected = prepared(flagged(), known_future=["open", "price"]).train[[0]].covariates
    assert expected is not None
    torch.testing.assert_close(covariates.known_BLG, expected.known_BLG)
