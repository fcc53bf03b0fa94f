"""Covariates through training: where the signal is in them, a network finds it there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.signals import (
    Build,
    known_frame,
    mse_of,
    past_frame,
    patchtst,
    static_frame,
    transformer,
)
from tsattn.cli import main
from tsattn.errors import CheckpointError, ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.models import DLinear, LastValue
from tsattn.training import ForecastData, ForecastTask, load_network
from tsattn.training.checkpoint import RECORD, describe_network, read_checkpoint
from tsattn.training.command import run

BOTH = pytest.mark.parametrize("build", [patchtst, transformer], ids=lambda one: one.__name__)


@pytest.fixture(autouse=True)
def _no_seed_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


def stored(tmp_path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(tmp_path / "own.csv", index=False)
    return tmp_path / "own.csv"


@pytest.mark.unchecked
@BOTH
def test_a_signal_known_ahead_is_found_and_without_it_nothing_is(
    build: Build, tmp_path: Path
) -> None:
    file = stored(tmp_path, known_frame())
    assert mse_of(build, file, known_future=["z"]) < 0.1
    file = stored(tmp_path, known_frame().drop(columns="z"))
    assert mse_of(build, file, steps=50) > 0.9


@pytest.mark.unchecked
@BOTH
def test_a_signal_in_a_past_covariate_is_found(build: Build, tmp_path: Path) -> None:
    file = stored(tmp_path, past_frame())
    assert mse_of(build, file, past=["p"]) < 0.25
    file = stored(tmp_path, past_frame().drop(columns="p"))
    assert mse_of(build, file, steps=50) > 0.9


@pytest.mark.unchecked
@BOTH
def test_a_static_feature_tells_apart_what_the_past_does_not(build: Build, tmp_path: Path) -> None:
    file = stored(tmp_path, static_frame())
    sizes = {"context": 8, "horizon": 8, "known_future": ["happens"]}
    told = mse_of(build, file, **sizes, static=["kind"])
    untold = mse_of(build, file, **sizes, steps=50)
    assert told < 0.25 * untold
    assert untold > 0.8


@pytest.mark.unchecked
@pytest.mark.parametrize("network", ["PatchTST", "EncoderDecoderTransformer"])
def test_calendar_covariates_of_etth1_run_through_fit_and_backtest(
    network: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.dataset", "ETTh1", "--data.context", "48", "--data.horizon", "24"]
    words += ["--data.known_future", "[hour_of_day,day_of_week]", "--model.network", network]
    words += ["--model.network.d_model", "8", "--model.network.num_heads", "2"]
    words += ["--model.network.d_ff", "8", "--trainer.logger", "false", "--run_dir", "run"]
    for part in ("train", "val", "test"):
        words += [f"--trainer.limit_{part}_batches", "2"]
    result = run(["fit", *words, "--trainer.max_epochs", "1"])
    assert result is not None
    assert result["network"]["arguments"]["known_covariates"] == 2
    forecaster = Forecaster.load("run")
    assert forecaster.trained.covariates is not None
    assert forecaster.trained.covariates.names.calendar == ("hour_of_day", "day_of_week")
    frame = pd.read_csv(root / "datasets" / "ETTh1.csv").iloc[-200:]
    assert forecaster.predict(frame).shape == (24, 8)
    assert np.isfinite(forecaster.backtest(frame, windows=2).scores("total")["mse"]).all()


@pytest.mark.unchecked
def test_command_takes_covariates_by_name_and_scores_again_from_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = known_frame(300).assign(open=lambda f: f.date.dt.hour > 7, p=range(300))
    stored(tmp_path, frame)
    options = ["--data.known_future", "[z,open,hour_of_day]", "--data.past", "[p]"]
    words = ["fit", "--data.dataset", "own.csv", "--data.context", "12", "--data.horizon", "4"]
    words += ["--model.network", "PatchTST", "--model.network.d_model", "8", "--run_dir", "run"]
    words += ["--model.network.num_heads", "2", "--trainer.logger", "false"]
    assert main([*words, *options, "--trainer.max_epochs", "1"]) == 0
    assert "covariates: known ahead: z, open, hour_of_day; past: p" in capsys.readouterr().out
    result = json.loads(Path("run/result.json").read_text())
    words = ["test", "--config", "run/config.yaml", "--ckpt_path", "best", "--trainer.logger=false"]
    assert "static" not in Path("run/config.yaml").read_text()
    again = run(words)
    assert again is not None
    assert again["test"]["mse"] == pytest.approx(result["test"]["mse"], rel=1e-6)
    words[0] = "fit"  # goes on where it was, under the same covariates only
    assert main([*words[:3], "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 0
    swapped = ["--data.known_future", "[open,z,hour_of_day]", "--ckpt_path", "last"]
    assert main([*words[:3], *swapped, "--trainer.max_epochs", "3"]) == 1
    assert "covariates" in capsys.readouterr().err


def test_a_network_without_a_place_for_covariates_is_refused_before_training(
    tmp_path: Path,
) -> None:
    file = stored(tmp_path, known_frame(200))
    data = ForecastData(str(file), context=12, horizon=4, known_future=["z"])
    with pytest.raises(
        ConfigError, match=r"DLinear takes covariates 0 known ahead.*the data have 1"
    ):
        ForecastTask(DLinear(1, 12, 4, kernel_size=3)).require_covariates(data)
    assert ForecastTask(LastValue(1, 12, 4)).network(data.prepared.test[[0]].past_BTC)


def test_covariates_must_not_be_given_twice(tmp_path: Path) -> None:
    file = stored(tmp_path, known_frame(200))
    data = ForecastData(str(file), context=12, horizon=4, known_future=["z"], past=["z"])
    with pytest.raises(DataError, match=r"'z' named as covariate twice"):
        _ = data.prepared


def test_a_network_without_covariates_is_described_as_before_and_old_files_load(
    tmp_path: Path,
) -> None:
    data = ForecastData(str(stored(tmp_path, known_frame(200))), context=12, horizon=4)
    assert not {"covariates", "covariates_mean"} & data.describe().keys()
    for build in (patchtst, transformer):
        arguments = describe_network(build(data))["arguments"]
        assert not [name for name in arguments if name.endswith("_covariates")]


@pytest.mark.unchecked
def test_a_checkpoint_that_contradicts_its_covariates_is_refused(tmp_path: Path) -> None:
    import lightning.pytorch as L

    from tsattn.training.saving import SafeCheckpointIO

    file = stored(tmp_path, known_frame(200))
    data = ForecastData(str(file), context=12, horizon=4, known_future=["z"])
    trainer = L.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, plugins=[SafeCheckpointIO()],
    )  # fmt: skip
    trainer.fit(ForecastTask(patchtst(data)), data)
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    assert load_network(tmp_path / "good.ckpt").covariate_sizes == (1, 0, 0)
    for change, message in (
        ({"covariates": None}, "covariates that are not the network's"),
        ({"covariates_scale": torch.tensor([[0.0]])}, "not finite and positive"),
        ({"covariates_mean": torch.zeros(1, 2)}, "scaler of another width"),
        (
            {"covariates": {"known": ["y"], "calendar": [], "past": [], "static": []}},
            "channels too",
        ),
        ({"covariates": {"known": ["z"]}}, "damaged"),
    ):
        content = read_checkpoint(tmp_path / "good.ckpt")
        content[RECORD]["data"] |= change
        torch.save(content, tmp_path / "bad.ckpt")
        with pytest.raises(CheckpointError, match=message):
            Forecaster.load(tmp_path / "bad.ckpt")
