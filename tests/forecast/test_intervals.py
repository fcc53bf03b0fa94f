"""Intervals of forecasts: their columns, their numbers, and what is said where there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.conftest import Fit
from tests.forecast.made import long_frame, melted, wide_frame
from tests.training.tiny import Finished
from tsattn.cli import main
from tsattn.errors import CheckpointError, ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.conformal import RECORD_KEY

DLINEAR = ("--model.network", "DLinear", "--model.network.kernel_size", 3)
QUANTILES = ("--model.loss", "quantile", "--model.network.quantiles", "[0.1,0.25,0.5,0.75,0.9]")


@pytest.fixture(scope="session")
def wide_run(fitted: Fit) -> Path:
    return fitted(wide_frame(400), *DLINEAR)


@pytest.fixture(scope="session")
def point(wide_run: Path) -> Forecaster:
    return Forecaster.load(wide_run)


@pytest.fixture(scope="session")
def quantile_run(fitted: Fit) -> Path:
    return fitted(wide_frame(400), *QUANTILES)


@pytest.fixture(scope="session")
def quantile(quantile_run: Path) -> Forecaster:
    return Forecaster.load(quantile_run)


def test_columns_of_a_wide_forecast_lie_beside_their_channel(point: Forecaster) -> None:
    frame = wide_frame(400, seed=3)[["c", "date", "a", "b"]]
    made = point.predict(frame, levels=[95, 80])
    ends = ["-lo-95", "-lo-80", "-hi-80", "-hi-95"]
    expected = ["c", *("c" + end for end in ends), "date"]
    expected += [name + end for name in "ab" for end in ["", *ends]]
    assert made.columns.tolist() == expected
    pd.testing.assert_frame_equal(made[["c", "date", "a", "b"]], point.predict(frame))
    for name in "abc":
        inner = made[[f"{name}-lo-95", f"{name}-lo-80", name, f"{name}-hi-80", f"{name}-hi-95"]]
        assert (inner.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)


def test_width_is_the_stored_score_in_the_channels_unit(point: Forecaster, wide_run: Path) -> None:
    content = read_checkpoint(wide_run / "checkpoints" / "best.ckpt")
    record = content[RECORD][RECORD_KEY]
    scores_HC = record["scores"][0, record["levels"].index(90.0)].double().numpy()
    scale_C = content[RECORD]["data"]["scaler_scale"][0].numpy()
    made = point.predict(wide_frame(400, seed=4), levels=[90])
    for place, name in enumerate("abc"):
        radius = scores_HC[:, place] * scale_C[place]
        np.testing.assert_allclose(made[f"{name}-hi-90"] - made[name], radius, rtol=1e-6)
        np.testing.assert_allclose(made[name] - made[f"{name}-lo-90"], radius, rtol=1e-6)


def test_scores_are_the_residuals_that_a_backtest_of_the_validation_part_has(
    point: Forecaster, wide_run: Path
) -> None:
    """Through another path: validation windows forecast by backtest, ranked by numpy."""
    frame = wide_frame(400)
    made = point.backtest(frame.iloc[:320], windows=37)  # rows 280 to 320 are for validation
    residuals = (made.forecast_WHK["standardised"] - made.truth_WHK["standardised"]).abs()
    ordered = np.sort(residuals.numpy(), axis=0)
    calibration = point.intervals.calibration
    assert calibration is not None
    assert calibration.windows == (37, 37, 37)
    expected = ordered[int(np.ceil(38 * 0.8)) - 1]
    np.testing.assert_allclose(calibration.scores(80, "abc", range(3)), expected, rtol=1e-5)


def test_long_frames_and_other_libraries_get_them_too(point: Forecaster) -> None:
    frame = wide_frame(400, seed=5)
    wide = point.predict(frame, levels=[80])
    long = point.predict(melted(frame), levels=[80])
    assert long.columns.tolist() == ["unique_id", "ds", "y", "y-lo-80", "y-hi-80"]
    for name in "abc":
        rows = long[long["unique_id"] == name]
        np.testing.assert_allclose(rows["y-lo-80"], wide[f"{name}-lo-80"], rtol=1e-9)
    indexed = point.predict(frame.set_index("date"), levels=[80])
    assert isinstance(indexed.index, pd.DatetimeIndex)
    assert indexed.columns.tolist()[:3] == ["a", "a-lo-80", "a-hi-80"]
    polars = pytest.importorskip("polars")
    assert point.predict(polars.from_pandas(frame), levels=[80]).columns == wide.columns.tolist()


def test_each_series_of_a_long_training_has_its_own_width(fitted: Fit) -> None:
    forecaster = Forecaster.load(fitted(long_frame((300, 280, 260)), *DLINEAR))
    made = forecaster.predict(long_frame((300, 280, 260), seed=9), levels=[80])
    width = (made["y-hi-80"] - made["y-lo-80"]).groupby(made["unique_id"]).mean()
    assert width.nunique() == 3
    some = made[made["unique_id"] != "s1"].reset_index(drop=True)
    fewer = long_frame((300, 280, 260), seed=9).query("unique_id != 's1'")
    pd.testing.assert_frame_equal(forecaster.predict(fewer, levels=[80]), some)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([], "levels are empty"),
        ([0], "level 0: expected percent"),
        ([100], "level 100: expected percent"),
        ([80, -5], "level -5: expected percent"),
        ([float("nan")], "level nan: expected percent"),
        ([float("inf")], "level inf: expected percent"),
        ([0.8], "did you mean 80?"),
        ([80, 80.0], "name one twice"),
        (["high"], "are no list of numbers"),
        (80, "are no list of numbers"),
    ],
)
@pytest.mark.unchecked
def test_bad_levels_are_refused(point: Forecaster, levels: Any, said: str) -> None:
    for command in (point.predict, point.backtest):
        with pytest.raises(ConfigError, match=said):
            command(wide_frame(400), levels=levels)


def test_level_beyond_the_validation_windows_is_refused(point: Forecaster) -> None:
    with pytest.raises(ConfigError, match="needs more validation windows than the 37 of 'a'"):
        point.predict(wide_frame(400), levels=[99])


def test_new_series_have_no_validation_windows(quantile: Forecaster) -> None:
    frame = wide_frame(60, names="xy")
    assert len(quantile.predict(frame, new_series=True)) == 4
    with pytest.raises(ConfigError, match="'x', 'y' was not trained on, so no validation window"):
        quantile.predict(frame, levels=[80], new_series=True)
    made = quantile.predict(frame, levels=[80], method="quantile", new_series=True)
    assert (made["x-lo-80"] <= made["x"]).all()


def test_checkpoint_without_a_calibration_says_what_to_run(wide: Forecaster) -> None:
    with pytest.raises(ConfigError, match=r"neither quantiles nor residuals.*tsattn calibrate RUN"):
        wide.predict(wide_frame(), levels=[80, 95])
    with pytest.raises(ConfigError, match=r"method adaptive.*tsattn calibrate RUN"):
        wide.backtest(wide_frame(), levels=[80], method="adaptive")


def test_method_that_cannot_be_is_refused(point: Forecaster) -> None:
    for method, said in {
        "bayes": "unknown method 'bayes'; expected one of conformal, quantile, adaptive",
        "quantile": "this network forecasts no quantiles; train one with --model.loss quantile",
        "adaptive": "belongs to backtest",
    }.items():
        with pytest.raises(ConfigError, match=said):
            point.predict(wide_frame(400), levels=[80], method=method)


def test_method_without_levels_is_refused(point: Forecaster) -> None:
    for command in (point.predict, point.backtest):
        with pytest.raises(ConfigError, match="method adaptive: it is for intervals, and none"):
            command(wide_frame(400), method="adaptive")


def test_networks_own_quantiles_are_offered_where_windows_are_too_few(
    quantile: Forecaster,
) -> None:
    with pytest.raises(ConfigError, match=r"needs more validation w.*; method quantile takes"):
        quantile.predict(wide_frame(400), levels=[99.5])


def test_name_of_an_interval_that_the_data_have_is_refused(fitted: Fit) -> None:
    frame = wide_frame(300).rename(columns={"b": "a-lo-80"})
    forecaster = Forecaster.load(fitted(frame, *DLINEAR))
    with pytest.raises(DataError, match="has a column 'a-lo-80', which is what the end"):
        forecaster.predict(frame, levels=[80])


def test_quantiles_as_they_are_and_conformalised(quantile: Forecaster) -> None:
    frame = wide_frame(400, seed=7)
    raw = quantile.predict(frame, levels=[50, 80], method="quantile")
    x_TC = quantile.trained.scaler.standardise(frame.iloc[-12:, 1:].to_numpy())
    with torch.inference_mode():
        quantiles_HCQ = quantile.network(x_TC.unsqueeze(0)).quantiles
    assert quantiles_HCQ is not None
    scale, mean = quantile.trained.scaler.scale_SC[0], quantile.trained.scaler.mean_SC[0]
    original = (quantiles_HCQ[0].double() * scale[:, None] + mean[:, None]).numpy()
    columns = ["a-lo-80", "a-lo-50", "a", "a-hi-50", "a-hi-80"]
    np.testing.assert_allclose(raw[columns], original[:, 0], rtol=1e-6)
    conformal = quantile.predict(frame, levels=[80])
    calibration = quantile.intervals.calibration
    assert calibration is not None
    score_H = calibration.scores(80, "abc", range(3))[:, 0].numpy() * scale[0].item()
    lower = np.minimum(raw["a-lo-80"] - score_H, raw["a"])
    np.testing.assert_allclose(conformal["a-lo-80"], lower, rtol=1e-6)
    with pytest.raises(ConfigError, match="give intervals of 80, 50 percent"):
        quantile.predict(frame, levels=[95], method="quantile")


def test_interval_always_holds_its_point_forecast(quantile: Forecaster) -> None:
    made = quantile.predict(wide_frame(400, seed=8), levels=[5, 10])
    for name in "abc":
        assert (made[f"{name}-lo-5"] <= made[name]).all()
        assert (made[name] <= made[f"{name}-hi-5"]).all()


def test_backtest_scores_coverage_and_width(point: Forecaster, quantile: Forecaster) -> None:
    frame = wide_frame(400, seed=2)
    for forecaster, method in (
        (point, "conformal"), (point, "adaptive"), (quantile, "conformal"), (quantile, "quantile"),
        (quantile, "adaptive"),
    ):  # fmt: skip
        made = forecaster.backtest(frame, windows=6, step=5, levels=[50, 80], method=method)
        fine = made.scores()
        assert fine.columns.tolist()[-4:] == ["coverage-50", "width-50", "coverage-80", "width-80"]
        assert set(fine["coverage-80"]) <= {0.0, 1.0}
        assert (fine["width-80"] >= fine["width-50"]).all()
        total = made.scores("total").set_index("unit")
        means = fine.groupby("unit")[["coverage-80", "width-80"]].mean()
        pd.testing.assert_frame_equal(means, total.loc[means.index, means.columns])
        assert total["coverage-80"].nunique() == 1  # it has no unit


def test_bands_of_a_backtest_are_those_of_the_forecasts(point: Forecaster) -> None:
    frame = wide_frame(400, seed=6)
    made = point.backtest(frame, windows=3, step=2, levels=[80])
    scale, mean = point.trained.scaler.scale_SC[0], point.trained.scaler.mean_SC[0]
    for window in range(3):
        expected = point.predict(frame.iloc[: 396 - 2 * (2 - window)], levels=[80])
        lower_HK = made.bands[80].lower_WHK[window] * scale + mean
        np.testing.assert_allclose(lower_HK, expected[[f"{n}-lo-80" for n in "abc"]], rtol=1e-6)


def test_command_writes_intervals_and_draws_them(
    wide_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = wide_run.parent / "own.csv"
    words = ["--ckpt", str(wide_run), "--data", str(data), "--levels", "80", "95"]
    out, plot = tmp_path / "f.csv", tmp_path / "f.png"
    assert main(["forecast", *words, "--out", str(out), "--plot", str(plot)]) == 0
    assert "a-lo-95" in pd.read_csv(out).columns
    with_bands = plot.stat().st_size
    assert main(["forecast", *words[:4], "--out", f"{out}2.csv", "--plot", f"{plot}2.png"]) == 0
    assert with_bands > Path(f"{plot}2.png").stat().st_size
    scores, picture = tmp_path / "s.csv", tmp_path / "s.png"
    typed = ["backtest", *words, "--windows", "5", "--method", "adaptive"]
    assert main([*typed, "--out", str(scores), "--plot", str(picture)]) == 0
    assert "coverage-95" in pd.read_csv(scores).columns
    assert picture.stat().st_size > 10_000
    assert "80 % coverage" in capsys.readouterr().out


def test_command_adds_a_calibration(
    illness: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(illness.folder.path)]) == 1
    assert "is calibrated already" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": "x"},
        {"scores": torch.zeros(1, 2, 4, 2)},
        {"windows": None},
        {"pairs": [[0.1, 0.9]]},
        {"levels": []},
    ],
)
def test_damaged_calibration_is_refused(
    wide_run: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    content = read_checkpoint(wide_run / "checkpoints" / "best.ckpt")
    content[RECORD][RECORD_KEY] |= damage
    torch.save(content, tmp_path / "damaged.ckpt")
    with pytest.raises(CheckpointError, match="its calibration is"):
        Forecaster.load(tmp_path / "damaged.ckpt")


def test_transformer_forecasts_quantiles_too(fitted: Fit) -> None:
    sizes = [
        word
        for name, size in {"d_model": 8, "num_heads": 2, "d_ff": 8, "encoder_layers": 1}.items()
        for word in (f"--model.network.{name}", size)
    ]
    run_dir = fitted(
        wide_frame(300), "--model.network", "EncoderDecoderTransformer", *sizes, *QUANTILES
    )
    forecaster = Forecaster.load(run_dir)
    assert forecaster.network.quantiles == (0.1, 0.25, 0.5, 0.75, 0.9)
    frame = wide_frame(300, seed=11)
    for method in ("quantile", "conformal"):
        made = forecaster.predict(frame, levels=[50, 80], method=method)
        assert (made["a-lo-80"] <= made["a"]).all()
        assert (made["a"] <= made["a-hi-80"]).all()
    total = forecaster.backtest(frame, 5, levels=[80], method="quantile").scores("total")
    assert total["coverage-80"].between(0, 1).all()
