"""What a run says beforehand about its duration and memory, and that saying so changes nothing."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from tests.training.tiny import (
    EPOCHS,
    Finished,
    contents,
    epoch_table,
    fit,
    fit_words,
    resume,
)
from tsattn.cli import main
from tsattn.training import command
from tsattn.training.command import run
from tsattn.training.estimate import (
    EnoughMeasuredError,
    Estimate,
    FirstSteps,
    duration,
    estimate_of,
    memory,
    undisturbed,
)
from tsattn.training.folder import RunFolder

LINE = re.compile(r"about (\S+ \S+) per epoch, (\S+ \S+) for (\d+) epochs?, \S+ [MG]iB")


def test_estimate_measures_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*fit_words(tmp_path / "run"), "--estimate"]) is None
    out = capsys.readouterr().out
    for figure in ("step ", "evaluation ", "epoch ", "whole training at most", "peak memory "):
        assert re.search(rf"^{figure}.*\d", out, flags=re.MULTILINE), out
    assert f"({EPOCHS} epochs)" in out
    assert "run folder" not in out
    assert list(tmp_path.iterdir()) == []


def test_estimate_leaves_an_existing_run_alone(finished: Finished) -> None:
    before = contents(finished.folder.path)
    run([*fit_words(finished.folder.path), "--estimate"])
    assert contents(finished.folder.path) == before


@pytest.mark.parametrize("subcommand", ["test", "validate"])
def test_estimate_belongs_to_fit(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = fit_words(Path("none"))[1:]
    assert main([subcommand, *words, "--estimate"]) == 1
    assert f"--estimate belongs to fit, not to {subcommand}" in capsys.readouterr().err


def test_every_fit_says_once_how_long_it_will_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path / "run", "--trainer.max_epochs", 2)
    (found,) = LINE.findall(capsys.readouterr().out)
    assert found[2] == "2"
    resume(RunFolder(tmp_path / "run"), "--trainer.max_epochs", 3)
    (found,) = LINE.findall(capsys.readouterr().out)
    assert found[2] == "1"


class Silent(Callback):
    """Stands where the measuring callback was."""


def test_measuring_changes_nothing_of_the_run(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "FirstSteps", Silent)
    unmeasured = fit(tmp_path / "run")
    monkeypatch.undo()
    pd.testing.assert_frame_equal(
        epoch_table(RunFolder(tmp_path / "run")), epoch_table(finished.folder)
    )
    assert unmeasured["test"] == finished.result["test"]


def test_the_estimate_is_not_stored_in_the_configuration(finished: Finished) -> None:
    assert "estimate" not in finished.folder.config.read_text(encoding="utf-8")


def trainer(**settings: Any) -> Any:
    usual: dict[str, Any] = {
        "num_training_batches": 10,
        "num_val_batches": [4],
        "check_val_every_n_epoch": 1,
        "max_epochs": 7,
        "max_steps": -1,
        "current_epoch": 2,
        "global_step": 20,
        "accumulate_grad_batches": 1,
        "is_global_zero": True,
        "strategy": SimpleNamespace(root_device=torch.device("cpu")),
    }
    return SimpleNamespace(**usual | settings)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 5),
        ({"max_steps": 50}, 3),
        ({"max_steps": 500}, 5),
        ({"max_epochs": -1, "max_steps": 25, "accumulate_grad_batches": 4}, 2),
        ({"max_epochs": None}, None),
        ({"max_epochs": 1}, 0),
    ],
)
def test_what_is_left_is_counted(settings: dict[str, Any], epochs: float | None) -> None:
    found = estimate_of(trainer(**settings), 0.5, 0.25, 3)
    assert found.epoch_seconds == 10 * 0.5 + 4 * 0.25
    assert found.epochs == epochs
    assert found.total_seconds == (None if epochs is None else epochs * 6.0)


@pytest.mark.unchecked
def test_validation_every_other_epoch_counts_half() -> None:
    assert estimate_of(trainer(check_val_every_n_epoch=2), 0.5, 0.25, 3).epoch_seconds == 5.5


def steps(callback: FirstSteps, ends: list[float], given: Any) -> list[str]:
    """Let the callback see steps that end at these times; return what it printed."""
    printed: list[str] = []
    task: Any = SimpleNamespace(print=printed.append)
    moments = iter([0.0, *ends])
    callback.clock = lambda: next(moments)
    for number in range(len(ends)):
        callback.on_train_batch_start(given, task, None, number)
        callback.on_train_batch_end(given, task, None, None, number)
    return printed


@pytest.mark.unchecked
def test_the_first_step_warms_up_and_the_median_of_the_others_counts() -> None:
    callback = FirstSteps(least_steps=3, least_seconds=0.0)
    printed = steps(callback, [100.0, 101.0, 131.0, 133.0], trainer())
    assert callback.estimate is not None
    assert (callback.estimate.step_seconds, callback.estimate.steps) == (2.0, 3)
    assert len(printed) == 1


@pytest.mark.unchecked
def test_short_steps_are_measured_for_a_while_and_a_short_epoch_for_all_of_it() -> None:
    callback = FirstSteps(least_steps=2, least_seconds=4.5, most_steps=100)
    steps(callback, [1.0, 2.0, 3.0, 4.0, 5.0], trainer())
    assert callback.estimate is None
    callback = FirstSteps(least_steps=2, least_seconds=4.5, most_steps=3)
    steps(callback, [1.0, 2.0, 3.0, 4.0], trainer())
    assert callback.estimate is not None
    callback = FirstSteps()
    steps(callback, [4.0], trainer(num_training_batches=1))
    assert callback.estimate is not None
    assert callback.estimate.step_seconds == 4.0


@pytest.mark.unchecked
def test_measuring_alone_leaves_the_training() -> None:
    callback = FirstSteps(stop=True, least_steps=1, least_seconds=0.0)
    with pytest.raises(EnoughMeasuredError):
        steps(callback, [1.0, 2.0], trainer())


def test_an_evaluation_in_between_is_not_noticed() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3).eval(), nn.Linear(3, 3))
    modes = [part.training for part in module.modules()]
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        torch.rand(2)
    assert torch.equal(torch.rand(5), expected)
    assert [part.training for part in module.modules()] == modes


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12.3 ms"), (1.4, "1.4 s"), (38.2, "38 s"), (3800, "63 min"), (18720, "5.2 h")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_reads_as_one_sentence() -> None:
    found = Estimate(0.38, 0.1, 38.0, 100, 1126.4, 5)
    assert found.line() == "about 38 s per epoch, 63 min for 100 epochs, 1.1 GiB"
    endless = Estimate(0.38, 0.1, 38.0, None, None, 5)
    assert endless.line() == "about 38 s per epoch"
    assert "no last epoch is set" in endless.text()
    assert memory(542.3) == "542 MiB"


def test_a_notebook_gets_the_line_with_the_callback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tsattn import ForecastData, ForecastTask, PatchTST

    data = ForecastData("illness", context=36, horizon=12, batch_size=64)
    task = ForecastTask(PatchTST(7, 36, 12, num_layers=1, d_model=8, num_heads=2, d_ff=16))
    L.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[FirstSteps()],
        default_root_dir=tmp_path,
    ).fit(task, data)
    assert LINE.search(capsys.readouterr().out)
