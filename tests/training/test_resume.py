"""A run that was stopped and resumed is the run that was not stopped."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.training.tiny import (
    EPOCHS,
    Finished,
    contents,
    epoch_table,
    fit,
    fit_words,
    python,
    resume,
    stored_result,
)
from tsattn.errors import CheckpointError, ConfigError, ExistsError
from tsattn.training.checkpoint import read_checkpoint
from tsattn.training.command import run
from tsattn.training.folder import RunFolder

KILL = """
import os, signal, sys
import torch
from tsattn.training.saving import SafeCheckpointIO
from tsattn.training.command import run
from tsattn.training.task import ForecastTask

torch.set_num_threads(1)
sys.modules["matplotlib.figure"] = None
place = sys.argv[1]
step, save, replaced = ForecastTask.training_step, SafeCheckpointIO.save_checkpoint, torch.save

def killed_in_a_batch(self, batch, batch_idx):
    if (self.current_epoch, batch_idx) == (2, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

def killed_while_saving(self, checkpoint, path, storage_options=None):
    def half(content, file):
        replaced(content, file)
        file.truncate(file.tell() // 2)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if checkpoint["epoch"] == 2 and "last" in str(path):
        torch.save = half
    return save(self, checkpoint, path, storage_options)

if place == "batch":
    ForecastTask.training_step = killed_in_a_batch
else:
    SafeCheckpointIO.save_checkpoint = killed_while_saving
run(sys.argv[2:])
"""


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)["state_dict"]


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    """Assert that two runs agree bit for bit in everything but the seconds."""
    pd.testing.assert_frame_equal(epoch_table(one), epoch_table(other))
    ours, theirs = stored_result(one), stored_result(other)
    for result in (ours, theirs):
        del result["wall_seconds"], result["commit"]
    assert ours == theirs
    for file in ("best", "last"):
        first, second = weights(getattr(one, file)), weights(getattr(other, file))
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), f"{file}: {name}"
    moments = [read_checkpoint(folder.last)["optimizer_states"] for folder in (one, other)]
    first, second = (json.dumps(moment, default=lambda t: t.tolist()) for moment in moments)
    assert first == second


@pytest.mark.parametrize("place", ["batch", "saving"])
def test_run_killed_and_resumed_is_bitwise_the_uninterrupted_one(
    finished: Finished, tmp_path: Path, place: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    killed = python(KILL, place, *fit_words(folder.path), cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(folder.last)["epoch"] == 1
    assert not folder.result.exists()
    left = list(folder.path.rglob("*unfinished*"))
    assert len(left) == (place == "saving")
    for file in left:
        os.utime(file, (0, 0))  # as old as what nobody writes any more
    result = resume(folder)
    assert_same_run(folder, finished.folder)
    assert result["test"] == finished.result["test"]
    assert result["wall_seconds"] > 0
    assert not list(folder.path.rglob("*unfinished*"))


def test_run_can_be_prolonged(finished: Finished, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, "--model.schedule", "EpochDecay", "--trainer.max_epochs", 2)
    resume(folder, "--trainer.max_epochs", EPOCHS)
    straight = RunFolder(tmp_path / "straight")
    fit(straight.path, "--model.schedule", "EpochDecay")
    assert_same_run(folder, straight)


def test_resuming_a_finished_run_inside_its_folder_changes_nothing_that_matters(
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folder.path, folder.path)
    before = contents(folder.path)
    monkeypatch.chdir(folder.path)
    run(["fit", "--config", "config.yaml", "--ckpt_path", "last"])
    assert "nothing was left to train: " in capsys.readouterr().out
    after = contents(folder.path)
    for name in ("metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml"):
        assert after[name] == before[name], name
    ours, theirs = stored_result(folder), stored_result(finished.folder)
    assert ours | {"commit": ""} == theirs | {"commit": ""}  # wall_seconds included


def test_resuming_an_early_stopped_run_does_not_train_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    stop = ["--early_stopping.patience", "1", "--early_stopping.min_delta", "10"]
    fit(folder.path, *stop, "--trainer.max_epochs", 20)
    table, result = epoch_table(folder), stored_result(folder)
    assert len(table) == 2
    again = resume(folder)
    assert "nothing was left to train: 2 epochs are done" in capsys.readouterr().out
    pd.testing.assert_frame_equal(epoch_table(folder), table)
    assert again["test"] == result["test"]
    assert again["epochs"] == result["epochs"] == 2
    longer = resume(folder, "--early_stopping.patience", 4)
    assert "nothing was left" not in capsys.readouterr().out
    assert longer["epochs"] == 5  # a patience that was raised counts


def test_moved_run_still_knows_its_best_epoch(finished: Finished, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "elsewhere")
    shutil.copytree(finished.folder.path, folder.path)
    content = torch.load(folder.last, weights_only=True)
    content["state_dict"]["network.head.bias"] += 100.0  # so that one more epoch is not the best
    torch.save(content, folder.last)
    result = resume(folder, "--trainer.max_epochs", EPOCHS + 1)
    losses = pd.read_csv(folder.metrics)["val/loss"].tolist()
    assert losses[-1] > 2 * min(losses)
    assert result["best_epoch"] == losses.index(min(losses)) + 1 == finished.result["best_epoch"]
    assert result["test"] == finished.result["test"]


def test_checkpoint_of_one_run_does_not_overwrite_another(
    finished: Finished, tmp_path: Path
) -> None:
    fit(tmp_path / "other", "--trainer.max_epochs", 1)
    before = contents(tmp_path / "other")
    with pytest.raises(ExistsError, match="holds a run already"):
        fit(tmp_path / "other", "--ckpt_path", finished.folder.last, "--trainer.max_epochs", 9)
    assert contents(tmp_path / "other") == before


@pytest.mark.parametrize("more", [[], ["--data.borders", "[0.9,0.05,0.05]"], ["--overwrite"]])
def test_run_does_not_go_on_in_the_folder_of_another(
    finished: Finished, tmp_path: Path, more: list[str]
) -> None:
    given = ["--ckpt_path", finished.folder.last, "--trainer.max_epochs", 9, *more]
    config = re.escape(str(finished.folder.config))
    with pytest.raises(ConfigError, match=f"in its own folder.*--config {config} --ckpt_path last"):
        fit(tmp_path / "other", *given)
    assert not (tmp_path / "other").exists()


def test_checkpoint_of_a_run_does_not_let_a_folder_be_overwritten_that_is_no_run(
    finished: Finished, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("precious: 1\n")
    with pytest.raises(ExistsError):
        fit(mine, "--ckpt_path", finished.folder.last, "--trainer.max_epochs", 9)
    assert contents(mine) == {"config.yaml": b"precious: 1\n"}


def test_resuming_without_a_checkpoint_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*run.checkpoints.last\.ckpt"):
        run([*fit_words(tmp_path / "run"), "--ckpt_path", "last"])
    assert not (tmp_path / "run").exists()
