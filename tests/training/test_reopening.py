"""Scoring a finished run again, from anywhere, without touching it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import EPOCHS, Finished, contents, fit
from tsattn.errors import CheckpointError, ConfigError
from tsattn.training.command import run
from tsattn.training.folder import RunFolder


def test_test_from_another_folder_gives_the_fits_score_exactly(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(finished.folder.path)
    result = run(
        [
            *("test", "--config", str(finished.folder.config)),
            *("--ckpt_path", str(finished.folder.best), "--save_predictions", "out.npz"),
        ]
    )
    assert result is not None
    assert result["test"] == finished.result["test"]
    assert result["as_published"] == finished.result["as_published"]
    assert result["best_epoch"] == finished.result["best_epoch"]
    with np.load("out.npz") as again, np.load(finished.predictions) as first:
        for name in first:
            assert np.array_equal(again[name], first[name]), name
    assert contents(finished.folder.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"], ["-c", "{}"]])
def test_best_and_last_are_those_of_the_configs_run(
    finished: Finished, form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.format(finished.folder.config) for word in form]
    best = run(["test", *words, "--ckpt_path", "best"])
    last = run(["test", *words, "--ckpt_path", "last"])
    assert best is not None
    assert last is not None
    assert best["test"] == finished.result["test"]
    assert last["best_epoch"] == EPOCHS  # of the checkpoint that was tested
    assert last["test"] != best["test"]
    assert list(tmp_path.iterdir()) == []


def test_best_is_found_inside_the_runs_folder(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder.path)
    before = contents(finished.folder.path)
    result = run(["test", "--config", "config.yaml", "--ckpt_path", "best"])
    assert result is not None
    assert result["test"] == finished.result["test"]
    assert contents(finished.folder.path) == before


def test_validate_gives_the_best_epochs_validation_score(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished.folder.path)
    run(["validate", "--config", str(finished.folder.config), "--ckpt_path", "best"])
    out = capsys.readouterr().out
    shown = re.search(r"val/loss ([\d.]+)", out)
    assert shown is not None
    epochs = pd.read_csv(finished.folder.metrics)
    best = epochs.sort_values("val/loss").iloc[0]
    assert float(shown.group(1)) == pytest.approx(best["val/loss"], rel=1e-6)
    row = next(line for line in out.splitlines() if finished.result["network"]["class"] in line)
    cells = [float(cell) for cell in re.findall(r"\d\.\d+", row)]
    assert cells == pytest.approx([best["val/mse"], best["val/mae"]], abs=6e-5)
    assert "validation windows" in out
    assert "window mean" in out
    assert contents(finished.folder.path) == before


@pytest.mark.parametrize("command", ["test", "validate"])
def test_weights_that_nobody_trained_are_not_scored(finished: Finished, command: str) -> None:
    with pytest.raises(ConfigError, match=f"{command} needs trained weights.*--ckpt_path"):
        run([command, "--config", str(finished.folder.config)])


def test_reopening_says_nothing_about_callbacks(
    finished: Finished, recwarn: pytest.WarningsRecorder
) -> None:
    run(["test", "--config", str(finished.folder.config), "--ckpt_path", "best"])
    spoken = [str(warning.message) for warning in recwarn]
    assert not [text for text in spoken if "callbacks" in text or "dirpath" in text]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.horizon", "13"], "horizon 12 instead of 13"),
        (["--data.context", "30"], "context 36 instead of 30"),
        (["--model.network.d_model", "16"], "d_model 8 instead of 16"),
        (["--model.network.value_activation", "relu"], "value_activation 'tanh' instead of 'relu'"),
        (["--model.network", "DLinear"], "holds a PatchTST, the configuration describes a DLinear"),
    ],
)
@pytest.mark.parametrize("command", ["test", "validate", "fit"])
def test_checkpoint_of_another_network_is_refused_and_nothing_is_changed(
    finished: Finished, tmp_path: Path, command: str, words: list[str], message: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folder.path, folder.path)
    before = contents(folder.path)
    with pytest.raises(CheckpointError, match=message):
        run([command, "--config", str(folder.config), "--ckpt_path", "last", *words])
    assert contents(folder.path) == before


@pytest.mark.parametrize(
    ("command", "borders", "message"),
    [
        # of 966 rows the run was trained on 676 and chosen by the next 97
        ("test", "[600,700,966]", "test part of .* trained on or chosen by 73 rows"),
        ("test", "[676,772,966]", "trained on or chosen by 1 row,"),
        ("validate", "[600,700,966]", "validation part of .* was trained on 76 rows"),
    ],
)
def test_rows_that_a_checkpoint_has_seen_are_not_scored(
    finished: Finished, command: str, borders: str, message: str
) -> None:
    words = ["--config", str(finished.folder.config), "--ckpt_path", "best"]
    with pytest.raises(ConfigError, match=f"{message}.*give the --data.borders"):
        run([command, *words, "--data.borders", borders])


def test_fewer_rows_than_it_has_not_seen_are_scored(finished: Finished) -> None:
    words = ["--config", str(finished.folder.config), "--ckpt_path", "best"]
    result = run(["test", *words, "--data.borders", "[676,800,966]"])
    assert result is not None
    assert result["test"]["windows_scored"] == 966 - 800 - 12 + 1
    run(["validate", *words, "--data.borders", "[676,800,966]"])


def test_missing_checkpoint_is_named_with_those_that_are_there(finished: Finished) -> None:
    absent = finished.folder.checkpoints / "bset.ckpt"
    config = str(finished.folder.config)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*bset\.ckpt.*best\.ckpt"):
        run(["test", "--config", config, "--ckpt_path", str(absent)])


def test_own_file_given_relatively_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wide: Callable[..., Path]
) -> None:
    write_wide(tmp_path / "here" / "own.csv", rows=120)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first = fit(Path("run"), "--data.dataset", "own.csv", "--trainer.max_epochs", 1)
    monkeypatch.chdir(tmp_path / "there")
    again = run(["test", "--config", "../here/run/config.yaml", "--ckpt_path", "best"])
    assert again is not None
    assert again["test"] == first["test"]


def test_data_root_given_relatively_is_found_from_another_folder(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    (tmp_path / "here" / "sets").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    # another file than the shipped one, so that finding the shipped one would be noticed
    text = (
        (root / "datasets" / "national_illness.csv")
        .read_text()
        .replace("2002-01-01", "2001-12-31", 1)
    )
    (tmp_path / "here" / "sets" / "national_illness.csv").write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    first = fit(Path("run"), "--data.root", "sets", "--trainer.max_epochs", 1)
    assert first["dataset"]["sha256"] != finished.result["dataset"]["sha256"]
    monkeypatch.chdir(tmp_path / "there")
    again = run(["test", "--config", "../here/run/config.yaml", "--ckpt_path", "best"])
    assert again is not None
    assert again["dataset"]["sha256"] == first["dataset"]["sha256"]
