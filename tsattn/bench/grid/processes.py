"""The default engine: every cell in a process of its own on this machine."""

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.engine import LIVES, Finished
from tsattn.bench.grid.failed import failed_row
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.worker import BUSY, read_outcome, work
from tsattn.bench.rows import Key

_NAME = "tsattn-cell"
_POLL_SECONDS = 0.2
_PRELOADED = ("tsattn.bench.grid.preload",)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_OF_ANOTHER_RUN = ("TSATTN_RUN_DIR", "LOCAL_RANK", "PL_GLOBAL_SEED")


@dataclass(frozen=True)
class _Child:
    cell: Cell
    folder: CellFolder
    process: BaseProcess


class Processes:
    """Runs cells in processes of their own, several at a time.

    A process that dies without a word (killed, out of memory) is started once more and goes on from
    its last epoch; when it dies again the cell has failed.

    Args:
        workers: how many at a time.
        threads: threads of each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers = workers
        self.threads = threads
        self.children: list[_Child] = []
        self.deaths: Counter[Key] = Counter()

    def run(
        self, cells: list[Cell], wanted: Callable[[Cell], bool], tick: Callable[[list[Key]], None]
    ) -> Generator[Finished, None, None]:
        """Run cells as `tsattn.bench.grid.engine.Engine` says."""
        waiting = deque(cells)
        try:
            while waiting or self.children:
                while waiting and len(self.children) < self.workers:
                    cell = waiting.popleft()
                    if wanted(cell):
                        self.children.append(self._start(cell))
                    else:
                        yield Finished(cell, None)
                for child in [c for c in self.children if c.process.exitcode is not None]:
                    self.children.remove(child)
                    if self._deserves_another_life(child):
                        waiting.appendleft(child.cell)
                    else:
                        yield _outcome_of(child)
                tick([child.cell.key for child in self.children])
                time.sleep(_POLL_SECONDS)
        finally:
            self._end_all()

    def _start(self, cell: Cell) -> _Child:
        folder = CellFolder.of(cell.key)
        folder.path.mkdir(parents=True, exist_ok=True)
        process = start(work, cell, folder, threads=self.threads)
        return _Child(cell, folder, process)

    def _deserves_another_life(self, child: _Child) -> bool:
        if child.process.exitcode in (0, BUSY):
            return False
        self.deaths[child.cell.key] += 1
        return self.deaths[child.cell.key] < LIVES

    def _end_all(self) -> None:
        self.children = []
        begun = [each for each in multiprocessing.active_children() if each.name == _NAME]
        for process in begun:  # one among them whose start was interrupted
            kill(process)
        for process in begun:
            process.join()


def start(job: Callable[..., None], *words: Any, threads: int) -> BaseProcess:
    """Start ``job(*words, threads, environment)`` in a process that need not import anything.

    Args:
        job: a function that can be imported.
        words: its first arguments.
        threads: threads of the process.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(list(_PRELOADED))
    variables = environment(threads)
    process: Any = context.Process(  # pyright: ignore[reportAttributeAccessIssue]
        target=job, args=(*words, threads, dict(variables)), name=_NAME
    )
    with _variables(variables):  # libraries read them when they are loaded
        process.start()
    return process


def environment(threads: int) -> Mapping[str, str]:
    """Return the environment of a cell: this one's, with so many threads and nobody's rank."""
    kept = {k: v for k, v in os.environ.items() if k not in _OF_ANOTHER_RUN}
    return kept | dict.fromkeys(_THREAD_VARIABLES, str(threads))


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def kill(process: BaseProcess) -> None:
    """End a process with all that it started; what it has on disk is whole at any moment."""
    if process.pid is not None and hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _outcome_of(child: _Child) -> Finished:
    status = child.process.exitcode
    if status == BUSY:
        return Finished(child.cell, None)
    if status != 0:
        row = failed_row(child.cell, f"{LIVES} processes died, the last by {_cause(status)}")
        return Finished(child.cell, row)
    row, weights = read_outcome(child.folder), child.folder.weights
    return Finished(child.cell, row, weights if weights.is_file() else None)


def _cause(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
