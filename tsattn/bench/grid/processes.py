"""The default engine: every cell in a process of its own on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tsattn.bench.grid.cell import CellFolder, failed_row
from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.worker import BUSY, order, row_of
from tsattn.bench.rows import Key, Row

_POLL_SECONDS = 0.2
_LIVES = 2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Finished:
    """A cell that is over; without a row where another runner is at it."""

    cell: Cell
    row: Row | None


@dataclass(frozen=True)
class _Child:
    cell: Cell
    folder: CellFolder
    process: subprocess.Popen[bytes]
    log: IO[bytes]


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
    ) -> Iterator[Finished]:
        """Run cells in their order and yield each when it is over.

        Args:
            cells: the cells.
            wanted: asked when a cell's turn has come; another runner may have finished it.
            tick: called a few times a second with the keys of the running cells.

        Closing the iterator ends all processes.
        """
        waiting = deque(cells)
        try:
            while waiting or self.children:
                while waiting and len(self.children) < self.workers:
                    cell = waiting.popleft()
                    if wanted(cell):
                        self.children.append(self._start(cell))
                    else:
                        yield Finished(cell, None)
                for child in [c for c in self.children if c.process.poll() is not None]:
                    self.children.remove(child)
                    _close(child)
                    if self._deserves_another_life(child):
                        waiting.appendleft(child.cell)
                    else:
                        yield Finished(child.cell, self._row(child))
                tick([child.cell.key for child in self.children])
                time.sleep(_POLL_SECONDS)
        finally:
            self._end_all()

    def weights(self, cell: Cell) -> Path | None:
        """Where the weights of a finished cell lie; None: it has none."""
        file = CellFolder.of(cell.key).weights
        return file if file.is_file() else None

    def _start(self, cell: Cell) -> _Child:
        folder = CellFolder.of(cell.key)
        folder.path.mkdir(parents=True, exist_ok=True)
        log = folder.log.open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "tsattn.bench.grid.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(self.threads),
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(OSError):  # it died at once; its status says so
            process.stdin.write(order(cell).encode())
            process.stdin.flush()
        return _Child(cell, folder, process, log)

    def _deserves_another_life(self, child: _Child) -> bool:
        if child.process.returncode in (0, BUSY):
            return False
        self.deaths[child.cell.key] += 1
        return self.deaths[child.cell.key] < _LIVES

    def _row(self, child: _Child) -> Row | None:
        status = child.process.returncode
        if status == BUSY:
            return None
        if status == 0:
            return row_of(child.folder.outcome.read_text(encoding="utf-8"))
        return failed_row(child.cell, f"{_LIVES} processes died, the last by {_cause(status)}")

    def _end_all(self) -> None:
        for child in self.children:
            _kill(child.process)
        for child in self.children:
            child.process.wait()
            _close(child)
        self.children = []


def environment(threads: int) -> Mapping[str, str]:
    """Return the environment of a cell: this one's, with so many threads and no rank."""
    kept = {k: v for k, v in os.environ.items() if k not in ("TSATTN_RUN_DIR", "LOCAL_RANK")}
    return kept | dict.fromkeys(_THREAD_VARIABLES, str(threads))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started; what it has on disk is whole at any moment."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _close(child: _Child) -> None:
    child.log.close()
    if child.process.stdin is not None:
        with suppress(OSError):
            child.process.stdin.close()


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
