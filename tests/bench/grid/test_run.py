"""`tsattn bench run`: fills the table, survives being killed, and never does a cell twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.grid.tiny import comparable, start, with_overrides, write_grid
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.kept import read_weights
from tsattn.bench.rows import read_rows
from tsattn.cli import main

EPOCHS = 120
SLOWER = with_overrides(trainer__max_epochs=EPOCHS, early_stopping__patience=200)


def until(happened: Callable[[], bool]) -> None:
    """Wait; pytest's own limit ends a wait that is in vain."""
    while not happened():
        time.sleep(0.02)


def epochs(cache: Path) -> dict[Path, int]:
    files = cache.glob("cells/*/run/metrics.csv")
    return {file: len(file.read_text(encoding="utf-8").splitlines()) - 1 for file in files}


def end(process: Any) -> tuple[int, str]:
    out, _ = process.communicate()
    return process.returncode, out


def test_grid_killed_interrupted_and_resumed_gives_the_rows_of_two_runners_at_once(
    tmp_path: Path,
) -> None:
    grid = write_grid(tmp_path, models=SLOWER, seeds=[7])

    def run(home: str, workers: str = "2") -> Any:
        words = ("--workers", workers, "--threads", "1")
        return start(
            grid, tmp_path / home, *words, cache=tmp_path / f"{home}-cache", env=os.environ
        )

    def both_are_behind(least: dict[Path, int]) -> bool:
        now = epochs(cache)
        return len(now) == 2 and all(count > least.get(file, 2) for file, count in now.items())

    for status, out in map(end, [run("straight", "1"), run("straight", "1")]):
        assert status == 0, out
    for log in (tmp_path / "straight-cache").glob("cells/*/log.txt"):
        assert log.read_text(encoding="utf-8").count("epoch 1/120") == 1, "it was trained twice"

    cache = tmp_path / "killed-cache"
    killed = run("killed")
    until(lambda: both_are_behind({}))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    until(lambda: not any(CellFolder(lock.parent).is_busy for lock in cache.glob("cells/*/lock")))
    assert not list((tmp_path / "killed" / "results").glob("*.csv"))

    for asked in (signal.SIGINT, signal.SIGTERM):
        before = epochs(cache)
        interrupted = run("killed")
        until(lambda before=before: both_are_behind(before))
        interrupted.send_signal(asked)
        status, out = end(interrupted)
        assert status == 130
        assert "interrupted; the same command goes on" in out
        assert not any(CellFolder(lock.parent).is_busy for lock in cache.glob("cells/*/lock"))

    status, out = end(run("killed"))
    assert status == 0, out
    assert "2 cells: 2 done" in out
    one, other = (tmp_path / home / "results" for home in ("straight", "killed"))
    assert comparable(one / "patchtst.csv") == comparable(other / "patchtst.csv")
    for log in cache.glob("cells/*/log.txt"):
        text = log.read_text(encoding="utf-8")
        assert text.count(f"epoch 1/{EPOCHS}") == 1, "it began anew"
        assert text.count(": process ") == 4
    kept = sorted(path.name for path in (one / "checkpoints" / "patchtst").iterdir())
    assert len(kept) == 2
    for name in kept:
        both = [
            (folder / "checkpoints" / "patchtst" / name).read_bytes() for folder in (one, other)
        ]
        assert both[0] == both[1]


def test_grid_runs_once_says_what_failed_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models: Any = with_overrides() | {
        "broken": {"recipe": SLOWER["patchtst"]["recipe"], "overrides": {"data.context": 90000}},
    }
    grid = write_grid(tmp_path, models=models, seeds=[7], activations=["tanh"])
    home, cache = tmp_path / "home", tmp_path / "cache"
    status, out = end(start(grid, home, cache=cache, env=os.environ))
    assert status == 1
    assert "2 cells: 1 done, 1 failed" in out
    (row,) = read_rows(home / "results" / "broken.csv")
    assert row.status == "failed"
    assert "DataError" in row.error
    (good,) = read_rows(home / "results" / "patchtst.csv")
    weights, record = read_weights(home / "results" / "checkpoints" / "patchtst" / good.checkpoint)
    assert record["key"] == good.key._asdict()
    assert record["data"]["dataset"] == "illness"
    assert sum(tensor.numel() for tensor in weights.values()) >= (
        good.parameters or 0
    )  # and statistics
    before = (home / "results" / "broken.csv").read_bytes()

    monkeypatch.chdir(home)
    assert main(["bench", "run", "--grid", str(grid)]) == 0
    assert "1 cell failed earlier; --retry-failed runs it again" in capsys.readouterr().out
    words = ("--retry-failed", "--only", "model=broken")
    status, out = end(start(grid, home, *words, cache=cache, env=os.environ))
    assert status == 1
    after = (home / "results" / "broken.csv").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 3
    assert len(read_rows(home / "results" / "broken.csv")) == 1


MISSPELT = {"recipe": SLOWER["patchtst"]["recipe"], "overrides": {"data.contxt": 3}}


def test_settings_that_do_not_exist_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path, models=with_overrides() | {"misspelt": MISSPELT})
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "run", "--grid", str(grid)]) == 1
    said = capsys.readouterr().err
    assert "misspelt illness: " in said
    assert "data.contxt" in said
    assert not list(tmp_path.glob("results/*.csv"))


def test_results_that_cannot_be_written_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("no folder", encoding="utf-8")
    words = ["--grid", str(write_grid(tmp_path)), "--results", "taken/below"]
    assert main(["bench", "run", *words]) == 1
    assert "--results taken/below: no rows can be written there" in capsys.readouterr().err
