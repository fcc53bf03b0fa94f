"""Trials in processes of this machine, which live on from trial to trial."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from tsattn.tune.engine import Died, Ended, Event, Reported
from tsattn.tune.job import Job, Outcome, train

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    lifeline: Connection
    number: int | None = None


class LocalEngine:
    """Worker processes, each with its number of threads; one that dies takes nobody along.

    Args:
        workers: how many trials run at a time.
        threads: of each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers = workers
        self.threads = threads
        self._pool: list[_Worker] = []

    def start(self, job: Job) -> None:
        """Begin a job in an idle worker, or in a new one."""
        for worker in [w for w in self._pool if w.number is None and not w.process.is_alive()]:
            self._discard(worker)
        idle = [worker for worker in self._pool if worker.number is None]
        worker = idle[0] if idle else self._hire()
        worker.number = job.number
        with contextlib.suppress(OSError):  # it died just now, and the next event says so
            worker.connection.send(job)

    def events(self, timeout: float) -> Sequence[Event]:
        """Wait for reports, ends and deaths."""
        busy: dict[Any, _Worker] = {w.connection: w for w in self._pool if w.number is not None}
        return [self._event(busy[each]) for each in wait(list(busy), timeout)]

    def answer(self, number: int, *, stop: bool) -> None:
        """Answer a report."""
        (worker,) = [w for w in self._pool if w.number == number]
        with contextlib.suppress(OSError):
            worker.connection.send(stop)

    def close(self) -> None:
        """Kill every worker."""
        for worker in list(self._pool):
            worker.process.kill()
            self._discard(worker)

    def processes(self) -> dict[int, int]:
        """Return the process of every trial that runs."""
        return {w.number: w.process.pid or 0 for w in self._pool if w.number is not None}

    def _event(self, worker: _Worker) -> Event:
        number = worker.number
        assert number is not None
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._discard(worker)
            return Died(number, _cause(worker.process.exitcode))
        if isinstance(said, Outcome):
            worker.number = None
            if said.status == "failed":
                self._discard(worker)
            return Ended(number, said)
        return Reported(number, *said)

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        their_end, our_end = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(theirs, their_end, self.threads), daemon=True, name="tsattn-trial"
        )
        with _environment(self.threads):
            process.start()
        theirs.close()
        their_end.close()
        worker = _Worker(process, ours, our_end)
        self._pool.append(worker)
        return worker

    def _discard(self, worker: _Worker) -> None:
        worker.process.join()
        worker.connection.close()
        worker.lifeline.close()
        self._pool.remove(worker)


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Let processes that are started meanwhile find their number of threads."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cause(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        killed = -status == getattr(signal, "SIGKILL", None)  # Windows has none
        hint = ", out of memory?" if killed else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {status}"


def _work(connection: Connection, lifeline: Connection, threads: int) -> None:
    """Run jobs until nobody sends any; end at once when whoever sends them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver ends its workers
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        with _log(job):
            outcome = train(job, lambda epoch, loss: _ask(connection, epoch, loss))
        connection.send(outcome)
        if outcome.status == "failed":
            return  # whatever it left behind, the next trial begins afresh


def _ask(connection: Connection, epoch: int, loss: float) -> bool:
    connection.send((epoch, loss))
    return connection.recv()


def _end_with(lifeline: Connection) -> None:
    """End this process when the other end of the lifeline is closed, by whatever."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


@contextlib.contextmanager
def _log(job: Job) -> Iterator[None]:
    """Send what the training prints into a file beside its folder."""
    path = job.folder.with_suffix(".log") if job.folder else Path(os.devnull)
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for copy, stream in zip(kept, (1, 2), strict=True):
                os.dup2(copy, stream)
                os.close(copy)
