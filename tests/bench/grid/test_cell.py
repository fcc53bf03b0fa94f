"""One cell: what becomes of it when something goes wrong, and what is kept of it."""

import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from tests.bench.grid import dying
from tests.bench.grid.tiny import write_grid
from tests.bench.test_rows import row
from tests.training.tiny import Finished
from tsattn.bench.grid import cell as cells
from tsattn.bench.grid import kept, processes
from tsattn.bench.grid.cell import CellBusyError, run_cell
from tsattn.bench.grid.cells import Cell, read_cells
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.kept import keep, read_weights, write_weights
from tsattn.bench.grid.processes import Processes
from tsattn.bench.grid.table import Results
from tsattn.errors import CheckpointError, CheckpointNotSavedError
from tsattn.training.checkpoint import build_network, read_checkpoint


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return read_cells([write_grid(tmp_path)])[1]


@pytest.fixture
def folder(cell: Cell) -> CellFolder:
    return CellFolder.of(cell.key)


def test_whatever_a_run_raises_becomes_a_failed_row_in_one_line(
    cell: Cell, folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot allocate\n  1 GB " + 600 * "x")

    monkeypatch.setattr(cells, "run", out_of_memory)
    failed = run_cell(cell, folder)
    assert failed.status == "failed"
    assert failed.key == cell.key
    assert failed.error.startswith("RuntimeError: cannot allocate 1 GB xxx")
    assert len(failed.error) == 500
    assert failed.recipe == "tiny.yaml"
    assert failed.max_epochs == 4


def test_checkpoint_that_does_not_fit_any_more_is_thrown_away_and_said_so(
    cell: Cell, folder: CellFolder, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls: list[list[str]] = []

    def run(words: list[str], **_: Any) -> None:
        calls.append(words)
        if "--ckpt_path" in words:
            raise CheckpointError("holds another PatchTST")
        assert not folder.run.path.exists()

    folder.run.create()
    folder.run.last.write_bytes(b"old")
    monkeypatch.setattr(cells, "run", run)
    assert run_cell(cell, folder).error == "RuntimeError: the run ended without a result"
    assert [words[-2:] for words in calls] == [
        ["--ckpt_path", "last"],
        ["--run_dir", str(folder.run.path)],
    ]
    assert "starting anew: holds another PatchTST" in capsys.readouterr().out


@pytest.mark.parametrize("cause", [None, OSError("stale handle"), MemoryError()])
def test_full_disk_or_memory_is_no_reason_to_start_anew(
    cell: Cell, folder: CellFolder, monkeypatch: pytest.MonkeyPatch, cause: Exception | None
) -> None:
    def run(words: list[str], **_: Any) -> None:
        assert "--ckpt_path" in words
        error = CheckpointError if cause else CheckpointNotSavedError
        raise error("last.ckpt: no room") from cause

    folder.run.create()
    folder.run.last.write_bytes(b"ninety epochs")
    monkeypatch.setattr(cells, "run", run)
    assert run_cell(cell, folder).error.endswith("last.ckpt: no room")
    assert folder.run.last.read_bytes() == b"ninety epochs"


def test_row_names_the_code_that_trained_the_cell_and_not_that_which_found_it_trained(
    cell: Cell, folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsattn.training.result.commit", lambda: "a" * 40)
    first = run_cell(cell, folder)
    monkeypatch.setattr("tsattn.training.result.commit", lambda: "b" * 40)
    again = run_cell(cell, folder)
    assert (first.commit, again.commit) == ("a" * 40, "a" * 40)
    assert again.test_mse == first.test_mse
    longer = replace(cell, words=(*cell.words, "--trainer.max_epochs", "5"))
    assert run_cell(longer, folder).commit == f"{'a' * 40}; {'b' * 40}"
    folder.made_by.unlink()  # trained by a version that kept no notes
    assert run_cell(longer, folder).commit == "b" * 40


def test_cell_that_another_process_is_at_is_left_alone(cell: Cell, folder: CellFolder) -> None:
    assert not folder.is_busy
    folder.path.mkdir(parents=True)
    with FileLock(folder.lock):
        assert folder.is_busy
        with pytest.raises(CellBusyError, match="another process is at it"):
            run_cell(cell, folder)
    assert not folder.is_busy


def finish(cell: Cell, job: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(processes, "_PRELOADED", ())
    monkeypatch.setattr(processes, "work", job)
    (over,) = Processes(1, 3).run([cell], lambda _: True, lambda _: None)
    return over


@pytest.mark.usefixtures("socket_enabled")  # the server of processes listens at a file
def test_process_that_dies_twice_is_a_failed_cell(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = finish(cell, dying.killed, monkeypatch)
    assert over.row.error == "2 processes died, the last by SIGKILL"
    assert over.row.status == "failed"


@pytest.mark.usefixtures("socket_enabled")  # the server of processes listens at a file
def test_cell_has_its_threads_a_group_of_its_own_and_a_log(
    cell: Cell, folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = finish(cell, dying.threads_told, monkeypatch)
    assert over.row is None
    assert folder.log.read_text(encoding="utf-8") == "threads 3 3 True\n"


@pytest.mark.usefixtures("socket_enabled")  # the server of processes listens at a file
def test_process_whose_start_was_interrupted_is_ended_too(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[BaseProcess] = []

    def start(*words: Any, threads: int) -> BaseProcess:
        begun.append(processes_start(*words, threads=threads))
        raise KeyboardInterrupt

    processes_start = processes.start
    monkeypatch.setattr(processes, "start", start)
    with pytest.raises(KeyboardInterrupt):
        finish(cell, dying.asleep, monkeypatch)
    assert begun[0].exitcode == -signal.SIGKILL


def test_cell_that_is_not_wanted_any_more_is_not_started(cell: Cell) -> None:
    (over,) = Processes(1, 1).run([cell], lambda _: False, lambda _: None)
    assert over.row is None


def test_weights_come_back_with_what_builds_their_network_and_are_the_same_bytes_again(
    cell: Cell, finished: Finished, tmp_path: Path
) -> None:
    digests = [
        write_weights(tmp_path / f"{n}.safetensors", finished.folder, cell.key) for n in "ab"
    ]
    assert digests[0] == digests[1]
    weights, record = read_weights(tmp_path / "a.safetensors")
    network = build_network(record["network"])
    network.load_state_dict(weights)
    best = read_checkpoint(finished.folder.best)
    for name, value in weights.items():
        assert torch.equal(value, best["state_dict"][f"network.{name}"])
    assert record["key"] == cell.key._asdict()
    assert record["epoch"] == finished.result["best_epoch"]
    assert record["data_sha256"] == finished.result["dataset"]["sha256"]
    assert "root" not in record["data"]
    assert str(Path.home()) not in str(record)


def test_foreign_and_newer_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="was not written by tsattn bench run"):
        read_weights(file)
    save_file({"a": torch.zeros(1)}, file, metadata={"tsattn": '{"format": 9}'})
    with pytest.raises(CheckpointError, match="has format 9, this version reads up to 1"):
        read_weights(file)


def test_small_weights_are_kept_as_long_as_there_is_room(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LARGEST_MB", 0.001)
    monkeypatch.setattr(kept, "ALL_MB", 0.0015)
    name = keep(b"x" * 1000, tmp_path, cell.key)
    assert (tmp_path / "checkpoints" / "patchtst" / name).read_bytes() == b"x" * 1000
    assert keep(b"x" * 2000, tmp_path, cell.key) == ""
    other = cell.key._replace(seed=99)
    assert keep(b"x" * 900, tmp_path, other) == ""  # no room beside the first
    assert keep(b"y" * 1000, tmp_path, cell.key) == name  # in its own place there is


def test_row_of_the_runner_that_was_first_stands(tmp_path: Path) -> None:
    results = Results(tmp_path)
    first = results.add(row(test_mse=1.0), b"weights")
    assert first.checkpoint == f"{first.key.name}.safetensors"
    again = results.add(row(test_mse=2.0), b"others' weights")
    assert again == first
    kept = tmp_path / "checkpoints" / first.model / first.checkpoint
    assert kept.read_bytes() == b"weights"
    assert results.rows(["patchtst"]) == {first.key: first}


FLOORS = ("last_value", "window_mean", "seasonal_naive", "train_mean")


@pytest.mark.parametrize("model", FLOORS)
def test_floor_has_a_row_without_being_trained(model: str) -> None:
    floors = read_cells(["configs/bench/peers.yaml"])
    (one,) = (c for c in floors if (c.key.model, c.key.dataset) == (model, "illness"))
    found = run_cell(one, CellFolder.of(one.key))
    assert found.error == ""
    assert (found.seed, found.value_activation, found.epochs) == (0, "", 0)
    assert (found.test_windows, found.parameters, found.context) == (158, 0, 104)
    assert found.val_mse is found.best_epoch is None
    assert found.checkpoint_sha256 == ""
    # 7.714 and 4.118 are on record for these windows, the mean of the training rows has 7.146
    known = {"last_value": 7.714, "window_mean": 4.118, "train_mean": 7.146}
    assert found.test_mse == pytest.approx(known.get(model, 2.2655), abs=5e-4)
