"""The same cells as tasks of a Ray cluster of two workers, one of which is killed."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.grid.test_run import EPOCHS, SLOWER, end, epochs, until
from tests.bench.grid.tiny import start, with_overrides, write_grid
from tsattn.bench.grid.cells import read_cells
from tsattn.bench.grid.ray_engine import _cell_task
from tsattn.bench.grid.table import Results, State
from tsattn.bench.rows import read_rows
from tsattn.errors import MissingExtraError


def processes_of(cache: Path) -> list[int]:
    """Return the processes that the cells' logs name, those that are over included."""
    logs = [log.read_text(encoding="utf-8") for log in cache.glob("cells/*/log.txt")]
    return [int(pid) for log in logs for pid in re.findall(r"process (\d+)", log)]


def on_ray(tmp_path: Path) -> tuple[Any, Path, Path]:
    """Start two cells on a cluster of two workers; return the driver, its folder and its cache."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    home, cache = tmp_path / "home", tmp_path / "cache"
    grid = write_grid(tmp_path, models=SLOWER, seeds=[7])
    words = ("--engine", "ray", "--workers", "2", "--threads", "1")
    driver = start(grid, home, *words, cache=cache, env=os.environ)
    return driver, home, cache


def test_a_node_without_the_data_says_so_and_leaves_no_row(tmp_path: Path) -> None:
    models = with_overrides(data__dataset=str(tmp_path / "own.csv"))
    (cell,) = read_cells([write_grid(tmp_path, models=models, seeds=[7], activations=["tanh"])])
    assert _cell_task(replace(cell, missing="asked of the driver"), 1) == (
        f"there is no file {tmp_path / 'own.csv'}"
    )
    assert Results(tmp_path).states([cell])[cell.key] == State.CANNOT
    assert Results(tmp_path).states([cell], elsewhere=True)[cell.key] == State.WAITING


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_cells_run_on_ray_and_outlive_a_worker(tmp_path: Path) -> None:
    driver, home, cache = on_ray(tmp_path)
    until(lambda: len(processes_of(cache)) == 2 and max([0, *epochs(cache).values()]) >= 3)
    os.kill(processes_of(cache)[0], signal.SIGKILL)
    status, out = end(driver)
    assert status == 0, out
    assert "2 cells: 2 done" in out
    assert len(processes_of(cache)) == 3  # one cell went on in another process
    rows = read_rows(home / "results" / "patchtst.csv")
    assert {row.value_activation for row in rows} == {"identity", "tanh"}
    for row in rows:
        assert row.status == "ok"
        assert (home / "results" / "checkpoints" / "patchtst" / row.checkpoint).is_file()
    for log in cache.glob("cells/*/log.txt"):
        assert log.read_text(encoding="utf-8").count(f"epoch 1/{EPOCHS} ") == 1, "it began anew"


@pytest.mark.slow
def test_sigterm_is_ctrl_c_whatever_ray_makes_of_it(tmp_path: Path) -> None:
    driver, _, cache = on_ray(tmp_path)
    until(lambda: max([0, *epochs(cache).values()]) >= 3)
    driver.send_signal(signal.SIGTERM)
    status, out = end(driver)
    assert status == 130, out
    assert "interrupted; the same command goes on" in out
    until(lambda: not any(map(is_alive, processes_of(cache))))


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from tsattn.bench.grid.ray_engine import RayTasks

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsattn\[ray\]'"):
        RayTasks(2, 1)
