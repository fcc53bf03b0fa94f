"""Training once more on all rows: recipe, epochs, scaler, residuals, and what is recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.test_conformal import small
from tests.training.tiny import contents
from tsattn.cli import main
from tsattn.errors import ConfigError, ExistsError
from tsattn.forecast import Forecaster
from tsattn.training.checkpoint import RECORD, read_checkpoint, weights_of
from tsattn.training.command import run
from tsattn.training.conformal import RECORD_KEY
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder
from tsattn.training.refit import StopAfter, WholeData, refit

Write = Callable[..., Path]


@pytest.fixture
def validated(write_wide: Write, tmp_path: Path) -> Path:
    """A finished run of three epochs on 200 rows."""
    file = write_wide(tmp_path / "own.csv", rows=200)
    run(small(file, tmp_path / "run", "--trainer.max_epochs", 3))
    return tmp_path / "run"


def test_refit_trains_on_all_rows_for_the_best_epochs(validated: Path, tmp_path: Path) -> None:
    before = contents(validated)
    result = refit(validated)
    assert contents(validated) == before
    again = RunFolder(tmp_path / "run-refit")
    then, now = (read_checkpoint(one.best) for one in (RunFolder(validated), again))
    best = then["epoch"] + 1
    assert (now["epoch"] + 1, result["epochs"]) == (best, best)
    assert result["refit_of"] == str(validated)
    assert result["validated"]["best_epoch"] == best
    assert result["val_windows"] == 0
    assert result["train_windows"] == 200 - 16 + 1
    assert now[RECORD]["refit"]["of"] == str(validated)
    assert now[RECORD]["training"] == then[RECORD]["training"]
    values = pd.read_csv(tmp_path / "own.csv").iloc[:, 1:].to_numpy()
    data = now[RECORD]["data"]
    np.testing.assert_allclose(data["scaler_mean"][0], values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(data["scaler_scale"][0], values.std(0), rtol=1e-12)
    # residuals stay as they were in original units
    then_scale, now_scale = (c[RECORD]["data"]["scaler_scale"] for c in (then, now))
    kept, carried = (c[RECORD][RECORD_KEY]["scores"] for c in (then, now))
    torch.testing.assert_close(carried * now_scale, kept * then_scale, check_dtype=False)


def test_forecasts_of_a_refit_have_intervals(validated: Path, tmp_path: Path) -> None:
    refit(validated, run_dir=tmp_path / "new")
    frame = pd.read_csv(tmp_path / "own.csv")
    old, new = (
        Forecaster.load(folder).predict(frame, levels=[80])
        for folder in (validated, tmp_path / "new")
    )
    assert new.columns.tolist() == old.columns.tolist()
    assert not np.allclose(new["c0"], old["c0"])
    widths = [one["c0-hi-80"] - one["c0-lo-80"] for one in (old, new)]
    np.testing.assert_allclose(*widths, rtol=1e-5)


def test_interrupted_refit_goes_on_to_the_same_weights(
    validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refit(validated, run_dir=tmp_path / "whole")
    whole = read_checkpoint(RunFolder(tmp_path / "whole").best)
    epochs = whole["epoch"] + 1
    if epochs < 2:
        pytest.skip("the best epoch was the first one, so nothing can be interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "on_train_epoch_end", _stop)
        with pytest.raises(ConfigError, match=f"ended after 1 of {epochs} epochs; go on with"):
            refit(validated, run_dir=tmp_path / "parts")
    assert not RunFolder(tmp_path / "parts").best.exists()
    refit(validated, run_dir=tmp_path / "parts", ckpt_path="last")
    parts = read_checkpoint(RunFolder(tmp_path / "parts").best)
    for name, weights in weights_of(whole).items():
        assert torch.equal(weights, weights_of(parts)[name]), name


def _stop(self: Any, trainer: Any, pl_module: Any) -> None:
    trainer.should_stop = True


def test_nothing_is_overwritten_unasked(validated: Path, tmp_path: Path) -> None:
    refit(validated)
    with pytest.raises(ExistsError, match="holds a run already"):
        refit(validated)
    with pytest.raises(ConfigError, match="is the run itself; name another folder"):
        refit(validated, run_dir=validated, overwrite=True)
    with pytest.raises(ConfigError, match=r"was itself trained on all rows; refit .*run"):
        refit(tmp_path / "run-refit")
    refit(validated, overwrite=True)


def test_what_cannot_be_refitted_is_said(validated: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        refit(tmp_path / "nothing")
    result = RunFolder(validated).result
    for text, message in (
        ('{"test": {}}', r"it lacks commit, train_windows; train it again"),
        ("[]", "it lacks test, commit, train_windows"),
        ("", r"result\.json is no result of a run \("),
        ("3", r"result\.json is no result of a run \("),
    ):
        result.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            refit(validated)
    assert not (tmp_path / "run-refit").exists()
    result.unlink()
    with pytest.raises(ConfigError, match=r"has no result\.json, so it is not finished; go on"):
        refit(validated)


def test_a_refit_is_not_scored(
    validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["refit", str(validated)]) == 0
    assert "trained on 200 rows for" in capsys.readouterr().out
    again = RunFolder(tmp_path / "run-refit")
    for command in ("test", "validate"):
        words = [command, "--config", str(again.config), "--ckpt_path", "best"]
        assert main(words) == 1
        assert "was trained on all rows" in capsys.readouterr().err
    assert main(["calibrate", str(again.path)]) == 1
    assert "no validation windows are left" in capsys.readouterr().err


def test_a_run_may_be_the_folder_that_one_stands_in(
    validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(validated)
    assert main(["refit", "."]) == 0
    assert RunFolder(tmp_path / "run-refit").result.is_file()


def test_other_rows_may_be_trained_on(validated: Path, write_wide: Write, tmp_path: Path) -> None:
    more = write_wide(tmp_path / "more.csv", rows=230, seed=4)
    result = refit(validated, data=more)
    assert result["train_windows"] == 230 - 16 + 1


def test_whole_data_end_with_the_test_part(write_wide: Write, tmp_path: Path) -> None:
    file = str(write_wide(tmp_path / "own.csv", rows=200))
    sizes: dict[str, Any] = {"context": 12, "horizon": 4, "borders": [100, 130, 160]}
    whole = WholeData(file, **sizes).prepared
    assert (len(whole.train), len(whole.val), len(whole.test)) == (145, 0, 0)
    parts = ForecastData(file, **sizes).prepared
    torch.testing.assert_close(
        whole.scaler.mean_SC[0].numpy(),
        pd.read_csv(file).iloc[:160, 1:].to_numpy().mean(0),
        rtol=1e-12,
        atol=0,
    )
    assert len(parts.train) == 85


@pytest.mark.parametrize(
    "policy",
    [
        ["--data.missing", "interpolate"],
        ["--data.missing", "mask"],
        ["--data.missing", "mask", "--data.gaps", "regularise"],
    ],
    ids=["interpolate", "mask", "regularise"],
)
def test_rows_with_holes_are_refitted(write_wide: Write, tmp_path: Path, policy: list[str]) -> None:
    file = write_wide(tmp_path / "own.csv", rows=200)
    frame = pd.read_csv(file)
    frame.loc[[20, 21, 150, 190], "c0"] = np.nan
    if "regularise" in policy:
        frame = frame.drop(index=[60, 61, 199 - 4])
    frame.to_csv(file, index=False)
    run(small(file, tmp_path / "run", "--trainer.max_epochs", 1, *policy))
    result = refit(tmp_path / "run")
    assert result["train_windows"] == 200 - 16 + 1
    again = Forecaster.load(tmp_path / "run-refit")
    assert again.trained.treatment.missing == policy[1]
    mean = frame[["c0", "c1"]].mean().to_numpy()
    np.testing.assert_allclose(again.trained.scaler.mean_SC[0], mean, rtol=1e-12)


@pytest.mark.parametrize("more", [[], ["--trainer.accumulate_grad_batches", 2]], ids=["1", "2"])
def test_steps_that_are_counted_last_as_many_epochs(
    write_wide: Write, tmp_path: Path, more: list[object]
) -> None:
    file = write_wide(tmp_path / "own.csv", rows=200)  # 125 windows, then 185: 7 batches, then 11
    steps = 4 if more else 7  # an epoch has 7 steps, or 4 of two batches
    words = ["--trainer.max_epochs", 3, "--data.batch_size", 16, "--model.learning_rate", 1e-3]
    result = run(small(file, tmp_path / "run", *words, *more, "--trainer.max_steps", 2 * steps))
    assert result is not None
    assert (result["train_windows"], result["epochs"]) == (125, 2)
    best = read_checkpoint(RunFolder(tmp_path / "run").best)["epoch"] + 1
    assert refit(tmp_path / "run")["epochs"] == best == 2
    again = read_checkpoint(RunFolder(tmp_path / "run-refit").best)
    assert again["global_step"] == 2 * (6 if more else 11)


def test_steps_that_are_counted_cut_no_epoch_short(write_wide: Write, tmp_path: Path) -> None:
    file = write_wide(tmp_path / "own.csv", rows=200)
    words = ["--data.batch_size", 16, "--model.learning_rate", 1e-3, "--trainer.max_steps", 10]
    run(small(file, tmp_path / "run", *words))
    assert read_checkpoint(RunFolder(tmp_path / "run").best)["epoch"] == 0  # the whole one
    refit(tmp_path / "run")
    assert read_checkpoint(RunFolder(tmp_path / "run-refit").best)["global_step"] == 11
