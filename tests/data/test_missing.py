"""Missing values of one's own files: refused, interpolated or masked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsattn.data import Panel, Reading, load_panel, prepare
from tsattn.data.targets import target_rows
from tsattn.data.treatment import Treated
from tsattn.errors import DataError
from tsattn.ops.gaps import fill_gaps

WriteCsv = Callable[..., Path]
POLICIES = ("interpolate", "mask")


def frame_with_holes(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(5.0, 2.0, size=(rows, 2)).round(3)
    values[[3, 4, 20, 45], 0] = np.nan
    frame = pd.DataFrame(values, columns=["a", "b"])
    frame.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
    return frame


def masked(frame: pd.DataFrame) -> Panel:
    return load_panel(frame, reading=Reading(missing="mask"))


def test_missing_values_are_refused_by_default_with_rows_columns_and_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        load_panel(frame_with_holes())
    message = str(caught.value)
    assert "row 3, column 'a' is 'NaN'" in message
    assert "--data.missing interpolate or --data.missing mask" in message


@pytest.mark.parametrize("policy", POLICIES)
def test_missing_values_are_counted_and_noted(policy: str) -> None:
    panel = load_panel(frame_with_holes(), reading=Reading(missing=policy))  # pyright: ignore
    assert panel.treated == Treated(missing=4, values=120)
    done = {"interpolate": "interpolated", "mask": "masked"}[policy]
    assert f"missing values: 4 of 120 (3.3%) {done}" in panel.notes
    assert np.flatnonzero(np.isnan(panel.series[0].values_RC[:, 0])).tolist() == [3, 4, 20, 45]


@pytest.mark.parametrize(
    "word", ["", " ", "NaN", "nan", "NA", "N/A", "#N/A", "<NA>", "null", "None", "-", "?"]
)
def test_words_for_nothing_are_missing(write_csv: WriteCsv, word: str) -> None:
    rows = [f"2020-01-{day:02},{day},{2 * day}" for day in range(1, 31)]
    rows[6] = f"2020-01-07,{word},14"
    panel = load_panel(write_csv("\n".join(["date,a,b", *rows])), reading=Reading(missing="mask"))
    values_RC = panel.series[0].values_RC
    assert np.isnan(values_RC[6, 0])
    assert np.isnan(values_RC).sum() == 1
    assert values_RC[7].tolist() == [8, 16]


@pytest.mark.parametrize("word", ["inf", "-inf", "1e999", "x", "True", "12 V"])
def test_what_is_no_number_but_something_is_refused_all_the_same(
    write_csv: WriteCsv, word: str
) -> None:
    path = write_csv(f"date,a\n2020-01-01,1\n2020-01-02,\n2020-01-03,{word}\n2020-01-04,2\n")
    with pytest.raises(DataError, match="line 4, column 'a' is"):
        load_panel(path, reading=Reading(missing="mask"))


def test_holes_go_with_decimal_commas_and_semicolons(write_csv: WriteCsv) -> None:
    rows = [f"{day:02}.01.2020;{day},5;{day}" for day in range(1, 29)]
    rows[4] = "05.01.2020;;5"
    panel = load_panel(write_csv("\n".join(["date;a;b", *rows])), reading=Reading(missing="mask"))
    assert panel.series[0].values_RC[3:6, 0].tolist()[::2] == [4.5, 6.5]
    assert panel.treated.missing == 1


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "Float32", "float32", "object"])
def test_dtypes_with_holes_are_read(dtype: str) -> None:
    frame = frame_with_holes().round({"a": 0, "b": 0})
    typed = frame.astype({"a": dtype, "b": dtype})
    expected, read = masked(frame), masked(typed)
    np.testing.assert_array_equal(read.series[0].values_RC, expected.series[0].values_RC)


def test_a_channel_that_was_never_measured_is_refused() -> None:
    with pytest.raises(DataError, match="no value at all in column 'a'"):
        masked(frame_with_holes().assign(a=np.nan))
    frame = frame_with_holes()
    frame.loc[:41, "a"] = np.nan
    with pytest.raises(DataError, match=r"no value of 'a' in the training rows 0 to 42"):
        prepare(masked(frame), context=5, horizon=2)


def test_a_part_without_targets_is_refused() -> None:
    frame = frame_with_holes()
    frame.loc[48:, ["a", "b"]] = np.nan
    with pytest.raises(DataError, match="windows of the test part forecast are missing"):
        prepare(masked(frame), context=5, horizon=2)


def two_series(rows: int = 100, **missing: slice) -> pd.DataFrame:
    """Return two series; the values of the rows named after them are missing."""
    days = pd.date_range("2020-01-01", periods=rows)
    parts = {
        name: pd.DataFrame({"unique_id": name, "ds": days, "y": np.arange(rows) % 7 + place * 1.0})
        for place, name in enumerate(("first", "second"))
    }
    for name, holes in missing.items():
        parts[name].loc[holes, "y"] = np.nan
    return pd.concat(parts.values(), ignore_index=True)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_targets_in_any_series_is_refused(part: str) -> None:
    """What is observed between the targets of two series belongs to another part."""
    rows = {"val": slice(70, 79), "test": slice(80, 99)}[part]
    with pytest.raises(DataError, match=f"windows of the {part} part forecast are missing"):
        prepare(masked(two_series(first=rows, second=rows)), context=5, horizon=2)
    prepared = prepare(masked(two_series(first=rows)), context=5, horizon=2)
    assert len(prepared.val) == 2 * 9


def test_target_rows_are_those_of_some_horizon() -> None:
    prepared = prepare(masked(two_series(first=slice(3, 3))), context=5, horizon=2)
    for windows, rows in ((prepared.train, range(5, 70)), (prepared.val, range(70, 80))):
        expected = [*rows, *(row + 100 for row in rows)]
        assert target_rows(windows).nonzero()[:, 0].tolist() == expected


def test_all_rows_may_be_for_training_and_none_is_a_target_of_the_other_parts() -> None:
    prepared = prepare(masked(frame_with_holes()), context=5, horizon=2, whole=True)
    assert (len(prepared.train), len(prepared.val), len(prepared.test)) == (54, 0, 0)
    assert not target_rows(prepared.val).any()


def test_scaler_is_that_of_the_observed_training_rows() -> None:
    frame = frame_with_holes()
    prepared = prepare(masked(frame), context=5, horizon=2)
    train = frame[["a", "b"]].iloc[:42]
    np.testing.assert_allclose(prepared.scaler.mean_SC[0], train.mean(), rtol=1e-12)
    np.testing.assert_allclose(prepared.scaler.scale_SC[0], train.std(ddof=0), rtol=1e-12)


@settings(max_examples=30)
@given(
    holes=st.lists(st.integers(0, 59), max_size=40),
    context=st.integers(1, 6),
    horizon=st.integers(1, 4),
)
def test_masks_travel_with_windows_and_what_is_missing_is_zero(
    holes: list[int], context: int, horizon: int
) -> None:
    frame = frame_with_holes()
    frame.loc[holes, "b"] = np.nan
    frame.loc[[0, 43, 59], ["a", "b"]] = 1.0  # every part has something
    prepared = prepare(masked(frame), context=context, horizon=horizon)
    missing_RC = frame[["a", "b"]].isna().to_numpy()
    for windows in (prepared.train, prepared.val, prepared.test):
        batch = windows[:]
        assert batch.observed_past_BTC is not None
        assert batch.observed_future_BHC is not None
        observed = torch.cat([batch.observed_past_BTC, batch.observed_future_BHC], dim=1)
        values = torch.cat([batch.past_BTC, batch.future_BHC], dim=1)
        for row, start in enumerate(windows.starts_W.tolist()):
            own = missing_RC[start : start + context + horizon]
            assert (observed[row].numpy() == ~own).all()
        assert (values[~observed] == 0).all()
        assert values.isfinite().all()
        truth = batch.truth()
        assert torch.equal(truth.isnan(), ~batch.observed_future_BHC)


def test_every_window_interpolates_within_its_own_context() -> None:
    """Nothing of the horizon, and nothing before the window, shows in a context."""
    frame = frame_with_holes()
    frame.loc[30:33, "b"] = np.nan
    filling = Reading(missing="interpolate")
    filled = prepare(load_panel(frame, reading=filling), context=6, horizon=3)
    seen = prepare(masked(frame), context=6, horizon=3)
    batch, known = filled.train[:], seen.train[:]
    assert batch.observed_past_BTC is None
    assert known.observed_past_BTC is not None
    assert torch.equal(batch.past_BTC, fill_gaps(known.past_BTC, known.observed_past_BTC))
    changed = frame.copy()
    changed.loc[31 + 3 :, ["a", "b"]] += 100.0  # the first observed target of window 25 and on
    other = prepare(load_panel(changed, reading=filling), context=6, horizon=3)
    to_original = [one.scaler.to_original for one in (filled, other)]
    contexts = [
        call(one.train[26:27].past_BTC, torch.zeros(1, dtype=torch.int64))
        for call, one in zip(to_original, (filled, other), strict=True)
    ]
    torch.testing.assert_close(contexts[0], contexts[1], rtol=1e-5, atol=1e-5)


def test_data_without_holes_carry_no_mask() -> None:
    frame = frame_with_holes().fillna(1.0)
    batch = prepare(masked(frame), context=5, horizon=2).train[:]
    assert batch.observed_past_BTC is None
    assert batch.observed_future_BHC is None


def test_series_of_a_long_file_have_their_own_holes(write_csv: WriteCsv) -> None:
    days = pd.date_range("2020-01-01", periods=60).strftime("%Y-%m-%d")
    lines = ["unique_id,ds,y"]
    lines += [
        f"s{s},{day},{'' if (i + s) % 9 == 0 else i}" for s in (0, 1) for i, day in enumerate(days)
    ]
    path = write_csv("\n".join(lines))
    with pytest.raises(DataError, match="line 2, column 'y' is empty"):
        load_panel(path)
    panel = load_panel(path, reading=Reading(missing="mask"))
    for s, series in enumerate(panel.series):
        holes = np.flatnonzero(np.isnan(series.values_RC[:, 0]))
        assert holes.tolist() == [i for i in range(60) if (i + s) % 9 == 0]


def test_published_files_are_read_as_published() -> None:
    panel = load_panel("illness", reading=Reading(missing="mask", duplicates="mean"))
    assert "read as published" in panel.notes[-1]
