"""A network trained on chosen columns: what else new data hold is left out again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.conftest import Fit, Train
from tests.forecast.made import long_frame, melted, wide_frame
from tests.training.signals import patchtst
from tsattn.cli import main
from tsattn.data import Reading
from tsattn.errors import DataError
from tsattn.forecast import Forecaster
from tsattn.forecast.export import export


def noted(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with text in the last column but one."""
    return frame.assign(remark="fine", d=1.0)


@pytest.fixture(scope="session")
def run(fitted: Fit) -> Path:
    return fitted(noted(wide_frame()), "--data.targets", "[a,c]")


@pytest.fixture(scope="session")
def chosen(run: Path) -> Forecaster:
    """DLinear on a and c of a file that holds more."""
    return Forecaster.load(run)


def test_forecast_is_that_of_the_columns_alone(chosen: Forecaster) -> None:
    frame = wide_frame(seed=5)
    found = chosen.predict(noted(frame))
    assert list(found.columns) == ["date", "a", "c"]
    pd.testing.assert_frame_equal(found, chosen.predict(frame[["date", "a", "c"]]))
    assert "columns not used: 'b', 'remark', 'd'" in chosen.outlook(noted(frame)).history.notes


def test_a_target_that_lacks_is_named(chosen: Forecaster) -> None:
    with pytest.raises(DataError, match="channels missing: 'c'"):
        chosen.predict(noted(wide_frame()).drop(columns="c"))


def test_training_saw_the_targets_alone(chosen: Forecaster, fitted: Fit) -> None:
    alone = Forecaster.load(fitted(wide_frame()[["date", "a", "c"]]))
    frame = wide_frame(seed=5)[["date", "a", "c"]]
    pd.testing.assert_frame_equal(chosen.predict(frame), alone.predict(frame))
    assert not alone.trained.targets_chosen


def test_exports_and_long_frames_do_the_same(chosen: Forecaster, run: Path, tmp_path: Path) -> None:
    frame = wide_frame(seed=5)
    export(run, tmp_path / "given")
    exported = Forecaster.load(tmp_path / "given")
    pd.testing.assert_frame_equal(exported.predict(noted(frame)), chosen.predict(noted(frame)))
    ahead = chosen.predict(melted(frame[["date", "a", "c"]]))
    assert list(ahead["unique_id"].unique()) == ["a", "c"]
    with pytest.raises(DataError, match="not trained on: 'b'"):
        chosen.predict(melted(frame))


def test_backtests_score_the_targets_alone(chosen: Forecaster) -> None:
    frame = wide_frame(seed=5)
    scores = chosen.backtest(noted(frame), windows=3).scores("channel")
    assert set(scores["channel"]) == {"a", "c"}
    refitted = chosen.backtest(noted(frame), windows=1, refit=True).scores("total")
    assert np.isfinite(refitted["mse"]).all()


def test_asking_for_columns_goes_before_what_the_training_named(
    wide: Forecaster, chosen: Forecaster
) -> None:
    frame = noted(wide_frame(seed=5))
    with pytest.raises(DataError, match=r"not trained on: 'remark', 'd'.*--targets"):
        wide.predict(frame)
    pd.testing.assert_frame_equal(
        wide.predict(frame, reading=Reading(targets=("a", "b", "c"))),
        wide.predict(frame.drop(columns=["remark", "d"])),
    )
    with pytest.raises(DataError, match="have to name c too"):
        wide.predict(frame, reading=Reading(targets=("a", "b")))
    new = chosen.predict(frame, new_series=True, reading=Reading(targets=("a", "d")))
    assert list(new.columns) == ["date", "a", "d"]
    with pytest.raises(DataError, match="no column 'x' to forecast"):
        wide.predict(frame, reading=Reading(targets=("x",)))


def test_the_target_of_a_long_file_chooses_no_series(train: Train) -> None:
    forecaster = Forecaster.load(train(long_frame(), targets=["y"]))
    frame = long_frame().pivot(index="ds", columns="unique_id", values="y")[-60:].reset_index()
    frame = frame.rename(columns={"ds": "date"}).interpolate(limit_direction="both")
    assert len(forecaster.predict(frame)) == forecaster.horizon
    with pytest.raises(DataError, match="not trained on: 's9'"):
        forecaster.predict(frame.assign(s9=1.0))


def test_a_run_goes_on_with_its_targets_alone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--config", str(run / "config.yaml"), "--data.targets", "[a,b]"]
    assert main(["fit", *again, "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 1
    assert "channels ['a', 'b'] instead of ['a', 'c']" in capsys.readouterr().err
    assert main(["test", *again, "--ckpt_path", "best"]) == 0
    assert "note: trained on the channels a, c, scored on a, b" in capsys.readouterr().out


def test_covariates_stay_beside_chosen_targets(train: Train) -> None:
    frame = noted(wide_frame())
    forecaster = Forecaster.load(
        train(frame, build=patchtst, targets=["a"], known_future=["b"], past=["c"])
    )
    history = frame.copy()
    history.loc[history.index[-4:], ["a", "c"]] = np.nan  # a has no value yet, b is known
    history.loc[history.index[-4:], "c"] = 1.0
    assert list(forecaster.predict(history).columns) == ["date", "a"]
    ahead = forecaster.predict(frame[:-4], future=frame[["date", "b"]])
    pd.testing.assert_frame_equal(forecaster.predict(history), ahead)


def test_commands_take_the_option_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(wide_frame(seed=5)).to_csv(tmp_path / "new.csv", index=False)
    typed = ["forecast", "--ckpt", run, "--data", tmp_path / "new.csv"]
    typed += ["--out", tmp_path / "ahead.csv"]
    assert main(list(map(str, typed))) == 0
    assert "columns not used: 'b', 'remark', 'd'" in capsys.readouterr().out
    typed += ["--overwrite", "--new-series", "--targets", "[b]"]
    assert main(list(map(str, typed))) == 0
    assert list(pd.read_csv(tmp_path / "ahead.csv").columns) == ["date", "b"]
    assert main(["data", "describe", str(tmp_path / "new.csv"), "--targets", "[a,d]"]) == 0
    assert "channels    2" in capsys.readouterr().out
