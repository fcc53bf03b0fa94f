"""Cells as tasks of a Ray cluster, on one machine or many; rows are written by the driver alone."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.engine import LIVES, Finished
from tsattn.bench.grid.failed import failed_row
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.rows import Key, Row
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.training.cluster import connect

_POLL_SECONDS = 0.2
_Outcome = tuple[Row, bytes | None] | str | None


class RayTasks:
    """Ray tasks, each with its processors, in a worker process that ends with it.

    A task whose worker or node dies is run again, where Ray finds room; on the same machine it goes
    on from its last epoch. Every node needs this package and the data. Recipes are found by name,
    so a recipe of your own must be on every node, too.

    Args:
        workers: how many cells at a time.
        threads: processors and threads of each.
        gpus: of each.
        address: of a cluster; None begins one on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster at that address, or none with a node large enough.
    """

    def __init__(
        self, workers: int, threads: int, *, gpus: float = 0.0, address: str | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("--engine ray needs ray: pip install 'tsattn[ray]'") from error
        self.ray = ray
        self.workers = workers
        self.threads = threads
        self.begun = not ray.is_initialized()
        if self.begun:
            connect(address, workers * threads)
        needs = {"CPU": float(threads), "GPU": gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(k, 0.0) >= v for k, v in needs.items()) for node in nodes):
            self._leave()
            raise ConfigError(
                f"no node of the Ray cluster has {threads} CPUs and {gpus:g} GPUs for a cell; "
                "give fewer --threads or --gpus"
            )
        # one call a process: its memory goes back, and its output belongs to one cell
        options = {"num_cpus": threads, "num_gpus": gpus, "max_retries": LIVES - 1, "max_calls": 1}
        self.task: Any = ray.remote(**options)(_cell_task)
        self.running: dict[Any, Cell] = {}

    def run(
        self, cells: list[Cell], wanted: Callable[[Cell], bool], tick: Callable[[list[Key]], None]
    ) -> Generator[Finished, None, None]:
        """Run cells as `tsattn.bench.grid.engine.Engine` says."""
        waiting = deque(cells)
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.workers:
                    cell = waiting.popleft()
                    if wanted(cell):
                        self.running[self.task.remote(cell, self.threads)] = cell
                    else:
                        yield Finished(cell, None)
                ready, _ = self.ray.wait(list(self.running), timeout=_POLL_SECONDS)
                for reference in ready:
                    yield self._outcome(reference, self.running.pop(reference))
                tick([cell.key for cell in self.running.values()])
        finally:
            for reference in self.running:
                self.ray.cancel(reference, force=True)
            self.running = {}
            self._leave()

    def _outcome(self, reference: Any, cell: Cell) -> Finished:
        from ray.exceptions import RayError, RayTaskError

        try:
            outcome: _Outcome = self.ray.get(reference)
        except RayTaskError as error:
            found = f"{type(error.cause).__name__}: {error.cause}"
            return Finished(cell, failed_row(cell, f"its Ray task ended with {found}"))
        except RayError as error:
            reason = f"its Ray task was lost {LIVES} times: {type(error).__name__}: {error}"
            return Finished(cell, failed_row(cell, reason))
        if outcome is None:
            return Finished(cell, None)
        if isinstance(outcome, str):
            return Finished(cell, None, obstacle=outcome)
        row, weights = outcome
        return Finished(cell, row, weights)

    def _leave(self) -> None:
        if self.begun:
            self.ray.shutdown()


def _cell_task(cell: Cell, threads: int) -> _Outcome:
    """Run a cell on whatever machine this is.

    Returns:
        Its row and small weights; why it cannot run here; None where another process is at it.
    """
    if obstacle := replace(cell, missing="").obstacle():  # what is missing was asked elsewhere
        return obstacle
    import torch

    from tsattn.bench.grid.cell import CellBusyError, run_cell
    from tsattn.bench.grid.kept import LARGEST_MB, MB

    torch.set_num_threads(threads)
    for name in ("TSATTN_RUN_DIR", "LOCAL_RANK", "PL_GLOBAL_SEED"):
        os.environ.pop(name, None)
    folder = CellFolder.of(cell.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.log.open("ab") as log:  # this process ends with the task
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    try:
        row = run_cell(cell, folder)
    except CellBusyError:
        return None
    file = folder.weights
    small = file.is_file() and file.stat().st_size <= LARGEST_MB * MB
    return row, file.read_bytes() if row.status == "ok" and small else None
