"""What a finished run leaves in its folder, and what its result says."""

import json
import math
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from tests.training.tiny import (
    BATCH,
    CONTEXT,
    EPOCHS,
    HORIZON,
    STEPS,
    TEST_WINDOWS,
    TRAIN_WINDOWS,
    Finished,
    epoch_table,
    stored_result,
)
from tsattn.data import CATALOG
from tsattn.errors import ExistsError
from tsattn.models import LastValue
from tsattn.training import ForecastData
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.command import run
from tsattn.training.folder import RunFolder

PNG = b"\x89PNG\r\n\x1a\n"


def test_folder_holds_a_runs_files_and_no_others(finished: Finished) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboard")
    folder = finished.folder.path
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    events = {name for name in held if name.startswith("tensorboard/")}
    assert held - events == {
        "config.yaml",
        "metrics.csv",
        "result.json",
        "forecast.png",
        "schedule.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert any("tfevents" in name for name in events)


def test_folder_is_free_until_a_run_has_written_its_config(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    (folder.path / ".config.yaml.ab12.unfinished").touch()  # killed, or the disk was full
    folder.require_unused(overwrite=False)
    folder.last.touch()
    with pytest.raises(ExistsError, match="is no run folder"):
        folder.require_unused(overwrite=True)


def test_pictures_are_pictures(finished: Finished) -> None:
    pytest.importorskip("matplotlib")
    for picture in (finished.folder.forecast_picture, finished.folder.schedule_picture):
        content = picture.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000


def test_metrics_have_one_row_per_epoch(finished: Finished) -> None:
    table = pd.read_csv(finished.folder.metrics)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["step"].tolist() == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert {"seconds", "train/loss", "val/loss", "val/mse", "val/mae", "learning_rate"} <= set(
        table.columns
    )
    assert bool((table["seconds"] > 0).all())
    assert bool(table.notna().all().all())


def test_validation_loss_is_the_mean_over_all_windows(finished: Finished) -> None:
    table = pd.read_csv(finished.folder.metrics)
    assert table["val/loss"].tolist() == pytest.approx(table["val/mse"].tolist(), rel=1e-6)


def test_training_has_learned_something(finished: Finished) -> None:
    losses = pd.read_csv(finished.folder.metrics)["val/loss"]
    assert losses.min() < 0.9 * losses.iloc[0]


def test_result_that_is_returned_is_the_one_that_is_stored(finished: Finished) -> None:
    assert stored_result(finished.folder) == json.loads(json.dumps(finished.result))


def test_result_has_every_window_and_the_published_ones(finished: Finished) -> None:
    test, published = finished.result["test"], finished.result["as_published"]
    assert test["windows_scored"] == TEST_WINDOWS
    assert test["windows_dropped"] == 0
    assert published["windows_scored"] == TEST_WINDOWS // BATCH * BATCH
    assert len(test["per_channel_mse"]) == 7
    assert test["mse"] == pytest.approx(sum(test["per_channel_mse"]) / 7)
    assert 0 < test["mae"] < test["mse"] ** 0.5


def test_result_says_what_was_trained_on_what(finished: Finished) -> None:
    result = finished.result
    assert result["dataset"]["name"] == "illness"
    assert result["dataset"]["sha256"] in CATALOG["illness"].sha256.values()
    assert result["dataset"]["borders"]["illness"] == {
        "train": (0, 676),
        "val": (676 - CONTEXT, 773),
        "test": (773 - CONTEXT, 966),
    }
    assert (result["context"], result["horizon"]) == (CONTEXT, HORIZON)
    assert result["train_windows"] == TRAIN_WINDOWS
    assert result["seed"] == 7
    assert result["network"]["class"] == "PatchTST"
    assert result["network"]["arguments"]["value_activation"] == "tanh"
    assert result["parameters"] == 1340


def test_result_says_how_it_was_trained(finished: Finished) -> None:
    result, table = finished.result, pd.read_csv(finished.folder.metrics)
    assert result["epochs"] == EPOCHS
    losses = table["val/loss"].tolist()
    assert result["best_epoch"] == losses.index(min(losses)) + 1
    assert result["wall_seconds"] == pytest.approx(table["seconds"].sum(), abs=0.06)
    assert result["device"].startswith("cpu") or result["device"]
    assert result["threads"] == torch.get_num_threads()
    assert result["precision"] == "32-true"
    assert result["attention"] in ("cpu", "sdpa")
    assert result["versions"]["torch"] == torch.__version__ == version("torch")
    assert {"tsattn", "lightning", "numpy", "python"} <= result["versions"].keys()
    assert result["commit"] is None or len(result["commit"].removesuffix("-dirty")) == 40


def test_result_has_the_floors_of_the_same_windows(finished: Finished) -> None:
    data = ForecastData("illness", context=CONTEXT, horizon=HORIZON, batch_size=BATCH)
    windows = data.prepared.test[:]
    error = LastValue(7, CONTEXT, HORIZON)(windows.past_BTC).mean - windows.future_BHC
    floors = finished.result["floors"]
    assert floors["last_value"]["mse"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert floors["last_value"]["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert floors["seasonal_naive"] is None  # a season of 52 weeks, a context of 36
    assert math.isfinite(floors["window_mean"]["mse"])


def test_best_checkpoint_is_that_of_the_lowest_validation_loss(finished: Finished) -> None:
    best, last = read_checkpoint(finished.folder.best), read_checkpoint(finished.folder.last)
    assert best["epoch"] + 1 == finished.result["best_epoch"]
    assert last["epoch"] + 1 == EPOCHS


def test_checkpoint_carries_what_a_forecast_needs(finished: Finished) -> None:
    record = read_checkpoint(finished.folder.best)[RECORD]["data"]
    data = ForecastData("illness", context=CONTEXT, horizon=HORIZON)
    assert record["channels"] == list(data.prepared.panel.channels)
    assert (record["context"], record["horizon"]) == (CONTEXT, HORIZON)
    assert record["step_seconds"] == 7 * 24 * 3600
    assert torch.equal(record["scaler_mean"], data.prepared.scaler.mean_SC)
    assert torch.equal(record["scaler_scale"], data.prepared.scaler.scale_SC)


def test_config_is_plain_settings_without_paths_of_the_run(finished: Finished) -> None:
    settings = yaml.safe_load(finished.folder.config.read_text())
    assert settings["seed_everything"] == 7
    assert settings["data"]["dataset"] == "illness"
    assert settings["model"]["network"]["init_args"]["dropout"] == 0.3
    assert not {"run_dir", "config", "ckpt_path", "overwrite"} & settings.keys()
    assert str(finished.folder.path) not in finished.folder.config.read_text()


def test_config_of_a_run_repeats_it_exactly(finished: Finished, tmp_path: Path) -> None:
    again = RunFolder(tmp_path / "again")
    words = ["--trainer.logger", "false"]
    result = run(
        ["fit", "--config", str(finished.folder.config), "--run_dir", str(again.path), *words]
    )
    assert result is not None
    pd.testing.assert_frame_equal(epoch_table(again), epoch_table(finished.folder))
    for part in ("test", "as_published", "floors"):
        assert result[part] == finished.result[part]
    same = read_checkpoint(again.best)["state_dict"]
    for name, value in read_checkpoint(finished.folder.best)["state_dict"].items():
        assert torch.equal(value, same[name]), name
