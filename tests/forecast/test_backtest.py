"""Rolling evaluation against the Trainer's own test, numpy and torchmetrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.regression import (
    symmetric_mean_absolute_percentage_error,
    weighted_mean_absolute_percentage_error,
)

from tests.forecast.made import long_frame, wide_frame
from tests.training.tiny import CONTEXT, HORIZON, TEST_WINDOWS, Finished
from tsattn.cli import main
from tsattn.errors import ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.forecast.backtest import Backtest
from tsattn.models import PatchTST

SCORES = ["mse", "mae", "mase", "wape", "smape"]


@pytest.fixture(scope="session")
def whole(forecaster: Forecaster, illness_frame: pd.DataFrame) -> Backtest:
    """All test windows of Illness."""
    return forecaster.backtest(illness_frame, TEST_WINDOWS)


def test_forecasts_are_those_of_the_trainer_on_all_test_windows(
    whole: Backtest, illness: Finished
) -> None:
    with np.load(illness.predictions) as stored:
        for unit, suffix in (("standardised", ""), ("original", "_original")):
            for kept, name in ((whole.forecast_WHK, "prediction"), (whole.truth_WHK, "target")):
                np.testing.assert_allclose(
                    kept[unit].numpy(), stored[name + suffix], rtol=1e-5, atol=1e-6
                )


def test_scores_are_those_of_the_test(whole: Backtest, illness: Finished) -> None:
    test = illness.result["test"]
    total = whole.scores("total").set_index("unit").loc["standardised"]
    assert [total["mse"], total["mae"]] == pytest.approx([test["mse"], test["mae"]], rel=1e-6)
    channels = whole.scores("channel").query("unit == 'standardised'")
    assert channels["mse"].tolist() == pytest.approx(test["per_channel_mse"], rel=1e-6)


def test_each_window_is_the_forecast_of_the_rows_before_it(wide: Forecaster) -> None:
    frame = wide_frame(seed=11)
    made = wide.backtest(frame, windows=4, step=3)
    for window in range(4):
        end = len(frame) - 4 - 3 * (3 - window)
        expected = wide.predict(frame.iloc[:end])
        forecast_HK = made.forecast_WHK["original"][window]
        np.testing.assert_allclose(forecast_HK, expected[["a", "b", "c"]], rtol=1e-6)
        truth = frame.iloc[end : end + 4, 1:].to_numpy()
        np.testing.assert_array_equal(made.truth_WHK["original"][window], truth)
        assert (pd.DatetimeIndex(made.cutoffs_WK[window]) == frame["date"].iloc[end - 1]).all()


def test_series_of_a_long_frame_are_scored_each_at_its_own_end(long: Forecaster) -> None:
    frame = long_frame()
    made = long.backtest(frame, windows=2, step=5)
    assert made.names == ("s0", "s1", "s2")
    parts = [rows.iloc[: len(rows) - 4] for _, rows in frame.groupby("unique_id")]
    expected = long.predict(pd.concat(parts))
    np.testing.assert_allclose(
        made.forecast_WHK["original"][1].T.flatten(), expected["y"], rtol=1e-6
    )
    ends = [part["ds"].iloc[-1] for part in parts]
    assert pd.DatetimeIndex(made.cutoffs_WK[1]).tolist() == ends


def by_hand(made: Backtest, unit: str, frame: pd.DataFrame, scale: np.ndarray) -> dict[str, Any]:
    """Return error, truth, forecast and naive error [windows, horizon, channels] from numpy."""
    y, f = made.truth_WHK[unit].numpy(), made.forecast_WHK[unit].numpy()
    values = frame.iloc[:, 1:].to_numpy() / (scale if unit == "standardised" else 1)
    naive = []
    for cutoff in made.cutoffs_WK[:, 0]:
        end = int(np.flatnonzero(frame["date"] == cutoff)[0]) + 1
        context = values[end - 12 : end]
        naive.append(np.abs(context[1:] - context[:-1]).mean(axis=0))  # a season of 24 has no room
    return {"y": y, "f": f, "e": np.abs(y - f), "q": np.stack(naive)[:, np.newaxis]}


@pytest.mark.parametrize(
    ("by", "kept"),
    [
        ((), (0, 2, 1)),
        (("window",), (0,)),
        (("channel",), (2,)),
        (("step",), (1,)),
        (("channel", "step"), (2, 1)),
        (("total",), ()),
    ],
)
@pytest.mark.parametrize("unit", ["standardised", "original"])
def test_scores_are_numpys(
    wide: Forecaster, by: tuple[str, ...], kept: tuple[int, ...], unit: str
) -> None:
    frame = wide_frame(seed=12)
    made = wide.backtest(frame, windows=5, step=2)
    parts = by_hand(made, unit, frame, wide.trained.scaler.scale_SC[0].numpy())
    e, y, f, q = (parts[name] for name in "eyfq")
    others = tuple(axis for axis in range(3) if axis not in kept)

    def reduced(values: np.ndarray, how: Any = np.mean) -> np.ndarray:
        values = np.broadcast_to(values, e.shape).transpose(*kept, *others)
        return how(values.reshape(*values.shape[: len(kept)], -1), axis=-1).reshape(-1)

    scores = made.scores(*by).query("unit == @unit")
    expected = {
        "mse": reduced(e**2),
        "mae": reduced(e),
        "mase": reduced(e / q),
        "wape": reduced(e, np.sum) / reduced(np.abs(y), np.sum),
        "smape": reduced(2 * e / (np.abs(y) + np.abs(f))),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, err_msg=name)


def test_torchmetrics_gives_the_same_over_everything(whole: Backtest) -> None:
    for unit in ("standardised", "original"):
        total = whole.scores("total").set_index("unit").loc[unit]
        parts = whole.forecast_WHK[unit], whole.truth_WHK[unit]
        for name, score in (
            ("wape", weighted_mean_absolute_percentage_error),
            ("smape", symmetric_mean_absolute_percentage_error),
        ):
            assert [total[name]] == pytest.approx([score(*parts).item()], rel=1e-9)


def test_finest_scores_are_tidy(whole: Backtest, illness_frame: pd.DataFrame) -> None:
    scores = whole.scores()
    assert scores.columns.tolist() == ["unit", "window", "cutoff", "channel", "step", *SCORES]
    assert len(scores) == 2 * TEST_WINDOWS * 7 * HORIZON
    assert not scores.isna().any().any()
    assert not scores.duplicated(["unit", "window", "channel", "step"]).any()
    first = scores[scores["window"] == 1]["cutoff"].unique()
    last_seen = len(illness_frame) - HORIZON - TEST_WINDOWS
    assert first.tolist() == [illness_frame["date"].iloc[last_seen]]
    assert scores["step"].max() == HORIZON
    by_step = scores.groupby(["unit", "step"])["mse"].mean()
    expected = whole.scores("step").set_index(["unit", "step"])["mse"]
    np.testing.assert_allclose(by_step, expected.loc[by_step.index], rtol=1e-9)


def test_original_scores_are_the_standardised_ones_in_the_channels_unit(
    whole: Backtest, forecaster: Forecaster
) -> None:
    scale = forecaster.trained.scaler.scale_SC[0].numpy()
    scores = whole.scores("channel").set_index(["unit", "channel"])
    mae = scores["mae"].unstack("unit").loc[list(whole.names)]
    np.testing.assert_allclose(mae["original"], mae["standardised"] * scale, rtol=1e-4)
    mase = scores["mase"].unstack("unit")
    np.testing.assert_allclose(mase["original"], mase["standardised"], rtol=1e-4)


def test_order_of_columns_does_not_matter(wide: Forecaster) -> None:
    frame = wide_frame(seed=13)
    expected = wide.backtest(frame, 3, 2).scores("channel").sort_values(["unit", "channel"])
    made = wide.backtest(frame[["c", "date", "a", "b"]], 3, 2).scores("channel")
    assert made["channel"].tolist() == ["c", "a", "b"] * 2
    made = made.sort_values(["unit", "channel"])
    np.testing.assert_allclose(made[SCORES], expected[SCORES], rtol=1e-9)


def test_new_series_are_scored_too(wide: Forecaster) -> None:
    made = wide.backtest(wide_frame(names="xy", seed=14), 3, 2, new_series=True)
    assert made.names == ("x", "y")
    assert np.isfinite(made.scores("total")[SCORES].to_numpy()).all()


def test_undefined_scores_are_nan_and_the_others_stay(wide: Forecaster) -> None:
    frame = wide_frame().assign(a=0.0)
    scores = wide.backtest(frame, 2).scores("channel").query("unit == 'original'")
    still = scores.set_index("channel").loc["a"]
    assert np.isnan(still[["mase", "wape"]].to_numpy(float)).all()
    assert np.isfinite(still[["mse", "mae", "smape"]].to_numpy(float)).all()
    assert scores.set_index("channel").loc[["b", "c"], SCORES].notna().all().all()


@pytest.mark.parametrize("by", ["total", "step", "window"])
def test_a_mase_over_channels_is_that_of_the_channels_that_have_one(
    wide: Forecaster, by: str
) -> None:
    frame = wide_frame().assign(a=5.3)
    made = wide.backtest(frame, 3)
    assert "in the context of a window: 'a'; without a MASE" in made.notes[-1]
    assert made.notes[-1].endswith("that of all is over the others")
    kept = ["unit"] + [by] * (by != "total")
    finest = made.scores().query("channel != 'a'").groupby(kept, sort=False)["mase"].mean()
    found = made.scores(by).set_index(kept)["mase"]
    np.testing.assert_allclose(found, finest.loc[found.index], rtol=1e-9)
    assert made.scores("channel").query("channel == 'a'")["mase"].isna().all()
    assert wide.backtest(wide_frame(), 3).notes == wide.backtest(wide_frame(), 1).notes


def test_without_any_mase_there_is_none_of_all(wide: Forecaster) -> None:
    made = wide.backtest(wide_frame().assign(a=1.0, b=2.0, c=3.0), 3)
    assert made.notes[-1].endswith("'a', 'b', 'c'; without a MASE, there is none of all")
    total = made.scores("total")
    assert total["mase"].isna().all()
    assert total[["mse", "mae", "smape"]].notna().all(axis=None)


def test_what_is_constant_since_the_training_divides_by_zero_and_not_by_rounding(
    train: Any,
) -> None:
    frame = wide_frame().assign(a=5.3)
    made = Forecaster.load(train(frame)).backtest(frame, 3)
    assert made.notes[-1].startswith("constant since the training: 'a'; a standardised sMAPE of 2")
    standardised, original = made.scores("channel").query("channel == 'a'")["wape"].tolist()
    assert np.isnan(standardised)
    assert original < 1
    assert np.isfinite(made.scores("total")[SCORES].to_numpy()).all()


def test_windows_over_rows_of_the_training_are_counted(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = train(wide_frame())  # 84 rows for training, 12 for validation, 24 for the test
    file = ckpt.parent / "train.csv"
    typed = ["backtest", "--ckpt", str(ckpt), "--data", str(file), "--windows", "100"]
    assert main(typed) == 0
    # the first target of window w is row 120 - 4 - 99 + w
    assert (
        "note: 67 of 100 windows forecast rows that the network was trained on, 12 more rows that "
        "it was validated on; their scores are too good"
    ) in capsys.readouterr().out.replace("\n", " ")
    forecaster = Forecaster.load(ckpt)
    some = forecaster.backtest(file, 22).notes
    assert some[-1].startswith("1 of 22 windows forecast rows that the network was validated on;")
    other = tmp_path / "other.csv"
    wide_frame(seed=5).to_csv(other, index=False)
    for data, windows in ((file, 21), (other, 100), (wide_frame(), 100)):
        assert "too good" not in " ".join(forecaster.backtest(data, windows).notes)


def test_rows_of_the_training_are_counted_per_series(train: Any) -> None:
    frame = long_frame((120, 100, 200))  # training ends with rows 84, 70 and 140
    ckpt = train(frame)
    forecaster, file = Forecaster.load(ckpt), ckpt.parent / "train.csv"
    # 79 windows, of which the first forecasts from row 38, 18 and 118
    seen = max(84 - 38, 70 - 18, 140 - 118)
    assert forecaster.backtest(file, 79).notes[-1].startswith(f"{seen} of 79 windows forecast")


def test_rows_of_the_training_are_counted_behind_inserted_ones(train: Any) -> None:
    frame = wide_frame().drop(index=[20, 21, 22])
    ckpt = train(frame, gaps="regularise", missing="interpolate")
    made = Forecaster.load(ckpt).backtest(ckpt.parent / "train.csv", 60)
    # 120 rows with those inserted; the first window forecasts from row 57
    assert made.notes[-1].startswith(f"{84 - 57} of 60 windows forecast rows")


def test_rows_that_are_needed_are_counted(wide: Forecaster) -> None:
    frame = wide_frame(30)
    assert len(wide.backtest(frame, windows=15).cutoffs_WK) == 15
    with pytest.raises(
        DataError, match=r"has 30 rows, but 31 are needed \(context 12 \+ horizon 4 \+ 15 times"
    ):
        wide.backtest(frame, windows=16)


def test_settings_that_cannot_work_are_refused(wide: Forecaster) -> None:
    frame = wide_frame()
    with pytest.raises(ConfigError, match="windows must be at least 1, got 0"):
        wide.backtest(frame, windows=0)
    with pytest.raises(ConfigError, match="step must be at least 1, got -2"):
        wide.backtest(frame, windows=2, step=-2)
    with pytest.raises(ConfigError, match="scores by weekday: expected some of window"):
        wide.backtest(frame).scores("weekday")


def test_a_missing_number_among_the_windows_is_named(wide: Forecaster) -> None:
    frame = wide_frame()
    frame.loc[100, "b"] = np.nan
    with pytest.raises(DataError, match="row 100, column 'b'"):
        wide.backtest(frame, windows=10)


def test_time_zones_do_not_stop_a_backtest(wide: Forecaster) -> None:
    times = pd.date_range("2020-03-25", periods=120, freq="h", tz="Europe/Berlin")
    made = wide.backtest(wide_frame().assign(date=times), 3)
    expected = wide.backtest(wide_frame(), 3)
    torch.testing.assert_close(made.forecast_WHK, expected.forecast_WHK)


def test_exchange_rate_is_fitted_forecast_and_scored_as_somebodys_own_data(
    shared: Path, train: Any, tmp_path: Path
) -> None:
    file = shared / "datasets" / "exchange_rate.csv"
    if not file.is_file():
        pytest.skip("there is no exchange_rate.csv")
    frame = pd.read_csv(file)
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    file_of_network = train(
        frame,
        context=CONTEXT,
        horizon=HORIZON,
        build=lambda data: PatchTST(8, CONTEXT, HORIZON, **sizes),
    )
    forecaster = Forecaster.load(file_of_network)
    made = forecaster.predict(file)
    assert made.columns.tolist() == frame.columns.tolist()
    assert made["date"].tolist() == pd.date_range("2010-10-11", periods=HORIZON).tolist()
    near = frame.iloc[-CONTEXT:, 1:]
    room = 10 * near.std()
    assert ((made.iloc[:, 1:] > near.min() - room) & (made.iloc[:, 1:] < near.max() + room)).all(
        axis=None
    )
    scores = forecaster.backtest(file, windows=5, step=HORIZON).scores("channel")
    assert scores["channel"].nunique() == 8
    assert np.isfinite(scores[SCORES].to_numpy()).all()


def test_numbers_that_are_too_large_to_be_squared_are_refused(wide: Forecaster) -> None:
    frame = wide_frame()
    frame.loc[119, "b"] = 1e300
    with pytest.raises(DataError, match=r"no finite score for 'b': the values are too large"):
        wide.backtest(frame)
