"""Forecasts with covariates: matched by name and time, and no later than they may be known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.signals import patchtst, transformer
from tsattn.cli import main
from tsattn.errors import ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.forecast.export import export

CONTEXT, HORIZON, ROWS = 12, 4, 120
LAST = 100  # rows before the horizon of most tests


def make_wide(seed: int = 0, rows: int = ROWS) -> pd.DataFrame:
    numbers = np.random.default_rng(seed).normal([10, 20, 3, 40, 5], 1, (rows, 5))
    frame = pd.DataFrame(numbers.round(3), columns=["a", "b", "price", "sun", "warm"])
    frame.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
    return frame


def make_long(rows: int = ROWS) -> pd.DataFrame:
    parts = [
        make_wide(seed, rows)
        .rename(columns={"date": "ds", "a": "y"})
        .drop(columns="b")
        .assign(unique_id=f"s{seed}", size=float(seed % 2))
        for seed in range(3)
    ]
    return pd.concat(parts, ignore_index=True)[
        ["unique_id", "ds", "y", "price", "sun", "warm", "size"]
    ]


NAMES: dict[str, Any] = {"known_future": ["price", "sun", "hour_of_day"], "past": ["warm"]}
Train = Callable[..., Path]


@pytest.fixture(scope="session")
def wide_file(train: Train) -> Path:
    return train(make_wide(), build=patchtst, **NAMES)


@pytest.fixture(scope="session", params=[patchtst, transformer], ids=lambda one: one.__name__)
def both(train: Train, request: pytest.FixtureRequest) -> Forecaster:
    """A forecaster of channels a and b of either network."""
    return Forecaster.load(train(make_wide(), build=request.param, **NAMES))


@pytest.fixture(scope="session")
def one(wide_file: Path) -> Forecaster:
    return Forecaster.load(wide_file)


@pytest.fixture(scope="session")
def of_series(train: Train) -> Forecaster:
    return Forecaster.load(train(make_long(), build=patchtst, **NAMES, static=["size"]))


def parted(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the history, and only time and known covariates of the horizon."""
    ahead = frame[["date", "price", "sun"]].iloc[LAST : LAST + HORIZON]
    return frame.iloc[:LAST], ahead


def equal(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    return np.array_equal(first[["a", "b"]].to_numpy(), second[["a", "b"]].to_numpy())


def test_forecast_is_that_of_the_network_on_standardised_covariates(both: Forecaster) -> None:
    frame = make_wide(7)
    history, ahead = parted(frame)
    made = both.predict(history, future=ahead)
    assert made.columns.tolist() == ["date", "a", "b"]
    assert made["date"].tolist() == frame["date"].iloc[LAST : LAST + HORIZON].tolist()
    backtest = both.backtest(frame.iloc[: LAST + HORIZON])  # gathers its windows another way
    np.testing.assert_allclose(
        backtest.forecast_WHK["original"][0].numpy(), made[["a", "b"]].to_numpy(), rtol=1e-5
    )
    other = both.predict(history, future=ahead.assign(price=ahead["price"] + 5))
    assert not equal(made, other)


def test_training_and_forecast_standardise_alike(
    one: Forecaster, wide_file: Path, tmp_path: Path
) -> None:
    fitted = one.trained.covariates
    assert fitted is not None
    training = make_wide().iloc[: int(0.7 * ROWS)]
    columns = ["price", "sun", "warm"]
    np.testing.assert_allclose(fitted.scaler.mean_SC[0], training[columns].mean(), rtol=1e-12)
    np.testing.assert_allclose(fitted.scaler.scale_SC[0], training[columns].std(ddof=0), rtol=1e-12)


def test_rows_with_empty_targets_say_what_is_known_ahead(one: Forecaster) -> None:
    frame = make_wide(7)
    history, ahead = parted(frame)
    made = one.predict(history, future=ahead)
    whole = frame.iloc[: LAST + HORIZON + 3].copy()
    whole.loc[LAST:, ["a", "b", "warm"]] = np.nan
    pd.testing.assert_frame_equal(one.predict(whole), made)
    assert equal(one.predict(whole.sample(frac=1, random_state=1), sort=True), made)
    scored = one.backtest(whole, windows=2)
    assert scored.forecast_WHK["original"].shape == (2, HORIZON, 2)


def test_order_of_columns_and_rows_of_the_future_does_not_matter(one: Forecaster) -> None:
    history, ahead = parted(make_wide(7))
    made = one.predict(history, future=ahead)
    turned = history[["warm", "b", "sun", "date", "a", "price"]]
    later = pd.concat([ahead[["sun", "price", "date"]], parted(make_wide(8))[1].assign(
        date=lambda f: f.date + pd.Timedelta("9D"), note="beyond")])  # fmt: skip
    again = one.predict(turned, future=later.sample(frac=1, random_state=0))
    assert equal(again, made)
    assert again.columns.tolist() == ["b", "date", "a"]
    indexed = one.predict(history.set_index("date"), future=ahead.set_index("date"))
    np.testing.assert_array_equal(indexed[["a", "b"]], made[["a", "b"]])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_nothing_from_after_its_time_changes_a_forecast(both: Forecaster, seed: int) -> None:
    """Past covariates after the context, and any covariate beyond the horizon."""
    frame, numbers = make_wide(7), np.random.default_rng(seed)
    end = LAST + HORIZON
    spoilt = frame.copy()
    spoilt.loc[LAST:, "warm"] = numbers.normal(size=ROWS - LAST) * 100
    spoilt.loc[end:, ["price", "sun"]] = numbers.normal(size=(ROWS - end, 2)) * 100
    spoilt.loc[LAST:, ["a", "b"]] = numbers.normal(size=(ROWS - LAST, 2)) * 100
    made = both.predict(frame.iloc[:LAST], future=frame.iloc[LAST:])
    assert equal(both.predict(frame.iloc[:LAST], future=spoilt.iloc[LAST:]), made)
    step = ROWS - end  # the first of two windows ends where the horizon does
    first, second = (
        both.backtest(one, windows=2, step=step).forecast_WHK["original"][0]
        for one in (frame, spoilt)
    )
    np.testing.assert_array_equal(first, second)


def test_series_have_covariates_and_static_features_of_their_own(of_series: Forecaster) -> None:
    frame = make_long()
    place = frame.groupby("unique_id").cumcount()
    history, ahead = frame[place < LAST], frame[(place >= LAST) & (place < LAST + HORIZON)]
    made = of_series.predict(history, future=ahead.drop(columns=["y", "size"]))
    assert made.columns.tolist() == ["unique_id", "ds", "y"]
    assert made["unique_id"].tolist() == [f"s{i}" for i in range(3) for _ in range(HORIZON)]
    for name in ("s0", "s2"):
        alone = of_series.predict(
            history[history.unique_id == name], future=ahead[ahead.unique_id == name]
        )
        np.testing.assert_allclose(alone["y"], made[made.unique_id == name]["y"], rtol=1e-5)
    other = history.assign(size=1 - history["size"])
    assert not np.allclose(of_series.predict(other, future=ahead)["y"], made["y"])
    whole = frame[place < LAST + HORIZON].copy()
    whole.loc[place >= LAST, ["y", "warm"]] = np.nan
    pd.testing.assert_frame_equal(of_series.predict(whole), made)
    shared = ahead[ahead.unique_id == "s1"].drop(columns=["unique_id", "y"])
    together = of_series.predict(history, future=shared)
    np.testing.assert_allclose(
        together[together.unique_id == "s1"]["y"], made[made.unique_id == "s1"]["y"], rtol=1e-5
    )


def test_new_series_are_forecast_with_their_covariates(of_series: Forecaster) -> None:
    frame = make_long().replace({"unique_id": {"s0": "new"}})
    place = frame.groupby("unique_id").cumcount()
    future = frame[place >= LAST]
    made = of_series.predict(frame[place < LAST], future=future, new_series=True)
    assert made["unique_id"].unique().tolist() == ["new", "s1", "s2"]
    assert np.isfinite(made["y"]).all()


def broken(frame: pd.DataFrame, ahead: pd.DataFrame, how: str) -> tuple[Any, Any]:
    hole = frame.copy()
    hole.loc[LAST - 2, "warm"] = np.nan
    gap = ahead.copy()
    gap.iloc[1, 2] = np.nan
    twice = pd.concat([ahead, ahead.iloc[:1].assign(price=0.0)])
    zoned = ahead.assign(date=ahead["date"].dt.tz_localize("UTC"))
    return {
        "no future": (frame, None),
        "no column": (frame.drop(columns="warm"), ahead),
        "no column ahead": (frame, ahead.drop(columns="sun")),
        "rows missing": (frame, ahead.iloc[[0, 2]]),
        "rows twice": (frame, twice),
        "hole": (hole, ahead),
        "hole ahead": (frame, gap),
        "time zone": (frame, zoned),
        "channel missing": (frame.drop(columns="b"), ahead),
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no future", r"takes price, sun as known ahead, and no rows follow .*--future FILE"),
        ("no column", r"covariates missing: 'warm'; the network takes 'warm', the columns are"),
        ("no column ahead", r"covariates missing: 'sun'; the network takes 'price', 'sun'"),
        ("rows missing", r"2 of the 4 rows of the horizon are missing: 2020-01-05 05:00:00, .*07"),
        ("rows twice", r"timestamps of the horizon repeat in rows 0, 4"),
        ("hole", r"covariates must hold finite numbers.*, but row 98, column 'warm'"),
        ("hole ahead", r"covariates must hold finite numbers.*, but row 1, column 'sun'"),
        ("time zone", r"timestamps of the frame have a time zone, those of the history have none"),
        ("channel missing", r"channels missing: 'b'"),
    ],
)
def test_what_cannot_be_says_what_is_missing(one: Forecaster, how: str, message: str) -> None:
    history, ahead = broken(*parted(make_wide(7)), how)
    with pytest.raises(DataError, match=message):
        one.predict(history, future=ahead)


def test_what_cannot_be_for_series_says_what_is_missing(of_series: Forecaster) -> None:
    frame = make_long()
    place = frame.groupby("unique_id").cumcount()
    history, ahead = frame[place < LAST], frame[place >= LAST]
    with pytest.raises(DataError, match=r"4 of the 4 rows of the horizon of series 's1' are"):
        of_series.predict(history, future=ahead[ahead.unique_id != "s1"])
    with pytest.raises(DataError, match=r"static 'size' changes within series 's0'"):
        of_series.predict(history.assign(size=np.arange(len(history))), future=ahead)
    with pytest.raises(DataError, match=r"covariates missing: 'size'"):
        of_series.predict(history.drop(columns="size"), future=ahead)
    history, ahead = parted(make_wide())
    with pytest.raises(DataError, match=r"takes size of each series, and the wide layout has no"):
        of_series.predict(history.drop(columns="b"), future=ahead, new_series=True)


def test_a_network_that_knows_nothing_ahead_takes_no_future(train: Train, wide: Forecaster) -> None:
    history, ahead = parted(make_wide(7))
    with pytest.raises(ConfigError, match="takes no columns that are known ahead; leave out"):
        wide.predict(history[["date", "a", "b"]].assign(c=1.0), future=ahead)
    frame = make_wide().drop(columns=["price", "sun"])
    calendar = Forecaster.load(
        train(frame, build=patchtst, known_future=["hour_of_day"], past=["warm"])
    )
    assert len(calendar.predict(frame)) == HORIZON  # its hours follow from the time
    with pytest.raises(ConfigError, match=r"known ahead \(known ahead: hour_of_day; past: warm\)"):
        calendar.predict(frame, future=ahead)


def test_exports_carry_covariates_and_graphs_say_that_they_cannot(
    wide_file: Path, one: Forecaster, tmp_path: Path
) -> None:
    export(wide_file, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| covariates | known ahead: price, sun; calendar: hour\\_of\\_day; past: warm |" in card
    history, ahead = parted(make_wide(7))
    again = Forecaster.load(tmp_path / "out").predict(history, future=ahead)
    pd.testing.assert_frame_equal(again, one.predict(history, future=ahead), check_exact=True)
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match="the ONNX graph has no inputs for them"):
        export(wide_file, tmp_path / "graph", with_onnx=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_command_takes_the_future_from_a_file(
    wide_file: Path, one: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    history, ahead = parted(make_wide(7))
    history.to_csv("own.csv", index=False)
    ahead.to_csv("future.csv", index=False)
    words = ["forecast", "--ckpt", str(wide_file), "--data", "own.csv", "--out", "out.csv"]
    assert main(words) == 1
    assert "--future FILE" in capsys.readouterr().err
    assert main([*words, "--future", "future.csv"]) == 0
    made = one.predict(history, future=ahead)
    np.testing.assert_allclose(pd.read_csv("out.csv")[["a", "b"]], made[["a", "b"]], rtol=1e-12)
    words[-1] = "future.csv"
    assert main([*words, "--future", "future.csv", "--overwrite"]) == 1
    assert "is the data" in capsys.readouterr().err
    assert main(["backtest", *words[1:5], "--windows", "3"]) == 0


def test_polars_frames_of_the_future_are_taken(one: Forecaster) -> None:
    polars = pytest.importorskip("polars")
    history, ahead = parted(make_wide(7))
    made = one.predict(polars.from_pandas(history), future=polars.from_pandas(ahead))
    assert equal(made.to_pandas(), one.predict(history, future=ahead))


def test_intervals_of_a_network_with_covariates_lie_around_its_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration, refits, exports: all of them hand the covariates on."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    frame = make_wide(rows=200)
    frame.to_csv("own.csv", index=False)
    words = ["fit", "--data.dataset", "own.csv", "--data.context", "12", "--data.horizon", "4"]
    words += ["--data.known_future", "[price,sun,hour_of_day]", "--data.past", "[warm]"]
    words += ["--model.network", "PatchTST", "--model.network.d_model", "8", "--run_dir", "run"]
    words += ["--model.network.num_heads", "2", "--model.network.quantiles", "[0.1,0.5,0.9]"]
    words += ["--model.loss", "quantile", "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    assert main(words) == 0
    forecaster = Forecaster.load("run")
    history, ahead = frame[:190], frame[190:]
    made = forecaster.predict(history, levels=[60], future=ahead)
    assert (made["a-lo-60"] <= made["a"]).all()
    assert (made["a"] <= made["a-hi-60"]).all()
    scored = forecaster.backtest(frame, windows=2, step=4, refit=True)
    assert np.isfinite(scored.scores("total")["mse"]).all()
    assert main(["export", "run", "--out", "model"]) == 0
    exported = Forecaster.load("model").predict(history, levels=[60], future=ahead)
    pd.testing.assert_frame_equal(exported, made)
    assert "known ahead: price, sun, hour" in Path("model/README.md").read_text().replace("\\", "")


def test_a_graph_without_inputs_for_covariates_is_refused(one: Forecaster, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tsattn.forecast.onnx_graph import write_onnx

    with pytest.raises(ConfigError, match=r"takes covariates \(3 known ahead.*without --onnx"):
        write_onnx(tmp_path / "model.onnx", one.network, one.trained)
