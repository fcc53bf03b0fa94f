"""Worker processes: what comes back from them, and what happens when somebody is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.engine import Died, Ended, Event, Reported
from tsattn.tune.job import Job
from tsattn.tune.local import LocalEngine, _cause, _Worker

SHORT = ("--trainer.max_epochs", "3", "--trainer.limit_train_batches", "2")


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(workers=2, threads=1)
    yield engine
    engine.close()


def next_of(engine: LocalEngine, number: int, *, stop_at: int = 0) -> Event:
    """Answer reports until a trial has something else to say, or has reported enough."""
    while True:
        for event in engine.events(60.0):
            if isinstance(event, Reported):
                engine.answer(event.number, stop=event.epoch == stop_at)
            elif event.number == number:
                return event


def test_workers_report_stop_fail_and_die(
    engine: LocalEngine, recipe: ParsedRecipe, tmp_path: Path
) -> None:
    def job(number: int, *words: str) -> Job:
        return Job(number, recipe.text, (*SHORT, *words), tmp_path / f"{number:04d}")

    engine.start(job(0))
    done = next_of(engine, 0)
    assert isinstance(done, Ended)
    assert (done.outcome.status, done.outcome.error) == ("done", "")
    assert done.outcome.data == "illness"
    assert "max_epochs: 3" in done.outcome.config
    assert done.outcome.config.startswith("# made from: ")
    (worker,) = engine._pool
    assert len((tmp_path / "0000" / "metrics.csv").read_text().splitlines()) == 4
    assert "epoch 3/3" in (tmp_path / "0000.log").read_text()
    assert not (tmp_path / "0000" / "checkpoints").exists()
    assert not (tmp_path / "0000" / "result.json").exists()

    engine.start(job(1))
    stopped = next_of(engine, 1, stop_at=2)
    assert isinstance(stopped, Ended)
    assert stopped.outcome.status == "stopped"
    assert len((tmp_path / "0001" / "metrics.csv").read_text().splitlines()) == 3
    assert engine._pool == [worker]  # the same process as before

    engine.start(job(2, "--model.learning_rate", "1e30", "--model.schedule", "EpochDecay"))
    failed = next_of(engine, 2)
    assert isinstance(failed, Ended)
    assert failed.outcome.status == "failed"
    assert failed.outcome.error.startswith("NonFiniteLossError: the training loss became")
    assert engine._pool == []  # the next one begins afresh

    engine.start(job(3))
    while not engine.events(60.0):
        pass
    os.kill(engine.processes()[3], signal.SIGKILL)
    died = next_of(engine, 3)
    assert died == Died(3, "its process was ended by SIGKILL, out of memory?")


class OfAnotherKind:
    """A connection as other systems have it: no `Connection`."""

    def __init__(self, connection: Connection) -> None:
        self.fileno = connection.fileno
        self.recv = connection.recv


def test_events_of_connections_of_any_kind_arrive() -> None:
    ours, theirs = multiprocessing.Pipe()
    engine = LocalEngine(1, 1)
    worker: Any = _Worker(multiprocessing.get_context("spawn").Process(), ours, ours, 3)
    worker.connection = OfAnotherKind(ours)
    engine._pool.append(worker)
    theirs.send((1, 0.5))
    assert engine.events(5.0) == [Reported(3, 1, 0.5)]


def test_cause_of_death_is_said_where_there_is_no_sigkill(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cause(-9) == "its process was ended by SIGKILL, out of memory?"
    monkeypatch.delattr(signal, "SIGKILL")
    assert _cause(-15) == "its process was ended by SIGTERM"
    assert _cause(3) == "its process ended with status 3"


def test_threads_of_a_worker_are_those_that_were_asked_for(
    recipe: ParsedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = LocalEngine(workers=1, threads=2)
    try:
        engine.start(Job(0, recipe.text, SHORT, tmp_path / "0000"))
        while not engine.events(60.0):
            pass
        environment = Path(f"/proc/{engine.processes()[0]}/environ")
        if environment.is_file():
            assert b"OMP_NUM_THREADS=2" in environment.read_bytes().split(b"\0")
        assert os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        engine.close()


DRIVER = """
import sys
from pathlib import Path
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.job import Job
from tsattn.tune.local import LocalEngine

if __name__ == "__main__":
    engine = LocalEngine(1, 1)
    recipe = ParsedRecipe(["--config", sys.argv[1]])
    engine.start(Job(0, recipe.text, (), Path(sys.argv[2])))
    while not engine.events(60.0):
        pass
    print(engine.processes()[0], flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_the_process_that_started_them(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER, encoding="utf-8")
    driver = subprocess.Popen(
        [sys.executable, str(script), str(root / "tests/training/tiny.yaml"), str(tmp_path / "r")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    for _ in range(600):
        if not _is_running(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lived on")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return state.parent.parent.is_dir() is False
