from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsattn.data import CATALOG, Prepared, load_panel, prepare
from tsattn.errors import DataError

COUNTS = {
    "ETTh1": (8113, 2689, 2689),
    "ETTh2": (8113, 2689, 2689),
    "ETTm1": (34033, 11329, 11329),
    "ETTm2": (34033, 11329, 11329),
    "weather": (36360, 5079, 10348),
    "illness": (537, 62, 158),
}
fixtures_are_constant = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def prepared_for(name: str, root: Path | None = None) -> Prepared:
    context, horizon = (104, 36) if name == "illness" else (336, 192)
    return prepare(load_panel(name, root=root), context=context, horizon=horizon)


def floors(windows) -> tuple[float, ...]:
    """MSE of the training mean, the last value and the window mean, over all windows."""
    batch = windows[:]
    last = batch.past_BTC[:, -1:]
    mean = batch.past_BTC.mean(1, keepdim=True)
    return tuple(
        float((batch.future_BHC - forecast).square().mean())
        for forecast in (torch.zeros(1), last, mean)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ETTh1", (1.111, 1.325, 0.713)), ("illness", (7.146, 7.714, 4.118))],
)
def test_trivial_floors_are_those_of_the_protocol(name: str, expected) -> None:
    prepared = prepared_for(name)
    assert floors(prepared.test) == pytest.approx(expected, abs=5e-4)


def test_trivial_floors_of_etth2_are_those_of_the_protocol(shared: Path) -> None:
    prepared = prepared_for("ETTh2", shared / "datasets")
    assert floors(prepared.test) == pytest.approx((3.163, 0.534, 0.402), abs=5e-4)


@pytest.mark.parametrize("name", [name for name, info in CATALOG.items() if info.embedded])
def test_embedded_datasets_give_the_window_counts_of_the_protocol(name: str) -> None:
    prepared = prepared_for(name)
    assert (len(prepared.train), len(prepared.val), len(prepared.test)) == COUNTS[name]


@pytest.mark.parametrize("name", ["ETTh2", "ETTm1", "ETTm2", "weather"])
def test_all_datasets_give_the_window_counts_of_the_protocol(name: str, shared: Path) -> None:
    prepared = prepared_for(name, shared / "datasets")
    assert (len(prepared.train), len(prepared.val), len(prepared.test)) == COUNTS[name]


@pytest.mark.parametrize("channels", [862, 321])
def test_frames_as_wide_as_traffic_and_electricity_are_prepared(channels: int) -> None:
    rows = 1754
    frame = pd.DataFrame(np.random.default_rng(0).random((rows, channels), np.float32))
    frame.insert(0, "date", pd.date_range("2016-07-01", periods=rows, freq="h"))
    prepared = prepare(load_panel(frame), context=336, horizon=192, borders=[0.7, 0.13, 0.17])
    assert len(prepared.train) == int(0.7 * rows) - 336 - 192 + 1
    assert prepared.test[[0]].past_BTC.shape == (1, 336, channels)


@fixtures_are_constant
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    context=st.integers(1, 10),
    horizon=st.integers(1, 6),
)
def test_no_window_crosses_a_border_and_none_is_lost(make_panel, lengths, context, horizon) -> None:
    panel = make_panel(120, *lengths)
    prepared = prepare(panel, context=context, horizon=horizon)
    offsets = np.cumsum([0, *prepared.panel.lengths])
    for label in ("train", "val", "test"):
        windows = getattr(prepared, label)
        expected = []
        for series, borders in enumerate(prepared.borders):
            begin, end = borders.parts()[label]
            rows = range(begin, end - context - horizon + 1)
            expected += [(series, int(offsets[series]) + row) for row in rows]
        found = list(zip(windows.series_W.tolist(), windows.starts_W.tolist(), strict=True))
        assert found == expected


@fixtures_are_constant
@given(length=st.integers(60, 200), context=st.integers(1, 12), horizon=st.integers(1, 5))
def test_the_scaler_sees_training_rows_only(make_panel, length, context, horizon) -> None:
    panel = make_panel(length, channels=2)
    num_train = int(0.7 * length)
    before = prepare(panel, context=context, horizon=horizon)
    panel.series[0].values_RC[num_train:] += 1000.0
    after = prepare(panel, context=context, horizon=horizon)
    assert torch.equal(before.scaler.mean_SC, after.scaler.mean_SC)
    assert torch.equal(before.scaler.scale_SC, after.scaler.scale_SC)
    train_rows = after.train.values_RC[:num_train]
    assert train_rows.mean(0).abs().max() < 1e-5
    assert (train_rows.std(0, correction=0) - 1).abs().max() < 1e-5


def test_the_parts_share_one_tensor(make_panel) -> None:
    prepared = prepare(make_panel(200), context=10, horizon=5)
    pointers = {part.values_RC.data_ptr() for part in (prepared.train, prepared.val, prepared.test)}
    assert len(pointers) == 1


def test_windows_of_the_long_layout_never_mix_two_series(make_panel) -> None:
    panel = make_panel(100, 150, 80)
    prepared = prepare(panel, context=8, horizon=4)
    for part in (prepared.train, prepared.val, prepared.test):
        batch = part[:]
        whole = torch.cat([batch.past_BTC, batch.future_BHC], 1)
        original = prepared.scaler.to_original(whole, part.series_W[batch.index_B])
        # made series lie around 0, 10 and 20: a mixture would stray far from its own
        centre = original.mean((1, 2)) - 10.0 * part.series_W
        assert centre.abs().max() < 4.0


def test_series_too_short_for_any_window_are_left_out_and_named(make_panel) -> None:
    prepared = prepare(make_panel(200, 5, 200), context=10, horizon=5)
    assert prepared.panel.ids == ("s0", "s2")
    assert prepared.scaler.mean_SC.shape == (2, 1)
    assert set(prepared.train.series_W.tolist()) == {0, 1}
    assert any("1 of 3 series are left out" in n and "'s1' (5 rows)" in n for n in prepared.notes)


def test_series_too_short_for_some_parts_serve_the_others_and_are_named(make_panel) -> None:
    prepared = prepare(make_panel(200, 24), context=10, horizon=5)
    assert prepared.panel.ids == ("s0", "s1")
    assert set(prepared.val.series_W.tolist()) == {0}
    assert any("serve only some: 's1' (24 rows)" in note for note in prepared.notes)


def test_when_no_series_suffices_the_longest_is_named_with_the_numbers(make_panel) -> None:
    with pytest.raises(
        DataError, match=r"longest series 's1': the train part has 28 rows.*needs 60"
    ):
        prepare(make_panel(30, 40), context=48, horizon=12)


def test_too_few_rows_for_one_window_say_how_many_are_needed(make_panel) -> None:
    with pytest.raises(DataError, match=r"the val part has 30 rows \[50, 80\).*needs 36"):
        prepare(make_panel(100), context=20, horizon=16)


def test_row_ends_must_fit_every_series(make_panel) -> None:
    with pytest.raises(DataError, match=r"series 's1': borders \[50, 70, 90\] end at row 90"):
        prepare(make_panel(100, 80), context=4, horizon=2, borders=[50, 70, 90])
    prepared = prepare(make_panel(100, 95), context=4, horizon=2, borders=[50, 70, 90])
    assert len(prepared.test) == 2 * (20 - 2 + 1)


@pytest.mark.parametrize(("context", "horizon"), [(0, 5), (5, 0), (-1, 5)])
def test_context_and_horizon_are_at_least_one(make_panel, context: int, horizon: int) -> None:
    with pytest.raises(DataError, match="must be at least 1"):
        prepare(make_panel(100), context=context, horizon=horizon)


def test_one_window_per_part_is_enough(make_panel) -> None:
    # 10 rows, context 5, horizon 1: train [0, 7), val [2, 8), test [3, 10)
    prepared = prepare(make_panel(10), context=5, horizon=1)
    assert (len(prepared.train), len(prepared.val), len(prepared.test)) == (2, 1, 2)


def test_a_channel_constant_while_training_is_named(make_panel) -> None:
    panel = make_panel(100, channels=2)
    panel.series[0].values_RC[:70, 1] = 3.0
    prepared = prepare(panel, context=5, horizon=2)
    assert prepared.train.values_RC.isfinite().all()
    assert any("constant in the training rows" in n and "'c1'" in n for n in prepared.notes)


def test_marks_follow_the_chosen_calendar(make_panel) -> None:
    prepared = prepare(make_panel(100), context=5, horizon=2, calendar=["hour_of_day"])
    batch = prepared.val[[0]]
    begin = prepared.borders[0].val[0]
    expected = [(begin + step) % 24 / 23 - 0.5 for step in range(7)]
    marks = torch.cat([batch.past_marks_BTM, batch.future_marks_BHM], 1).flatten()
    assert marks.tolist() == pytest.approx(expected, abs=1e-6)
    assert prepared.calendar == ("hour_of_day",)
