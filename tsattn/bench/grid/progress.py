"""What a person sees while a grid runs: a live table on a terminal, a line per cell elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.costs import Cost, Costs
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.plan import total
from tsattn.bench.grid.table import State, tally
from tsattn.bench.rows import Key, Row
from tsattn.training.amounts import duration

_REFRESH_SECONDS = 1.0


class Progress:
    """Shows which cells are done and running, and when the rest will be.

    Args:
        cells: all cells of the table.
        states: where each is; kept up to date here.
        costs: what each takes; learns from those that finish.
        workers: how many run at a time.
        console: where it is shown.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        states: dict[Key, State],
        costs: Costs,
        workers: int,
        console: Console,
    ) -> None:
        self.cells = {cell.key: cell for cell in cells}
        self.states = states
        self.costs = costs
        self.workers = workers
        self.console = console
        self.started: dict[Key, float] = {}
        self.shown = 0.0
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        if self.live:
            self.live.__exit__(kind, error, trace)

    def tick(self, running: list[Key]) -> None:
        """Note what runs now, and draw it anew once a second."""
        now = time.monotonic()
        for key in running:
            self.states[key] = State.RUNNING
            self.started.setdefault(key, now)
        if self.live and now - self.shown >= _REFRESH_SECONDS:
            self.shown = now
            self.live.update(self._picture(running), refresh=True)

    def over(self, cell: Cell, row: Row | None, obstacle: str = "") -> None:
        """Note and say that a cell is over.

        Args:
            cell: the cell.
            row: what stands for it; None where another runner is at it, or it cannot run.
            obstacle: why it cannot run.
        """
        self.started.pop(cell.key, None)
        if row is None and obstacle:
            self.states[cell.key] = State.CANNOT
            text = f"{cell.name}: cannot run there: {obstacle}"
        elif row is None:
            self.states[cell.key] = State.ELSEWHERE
            text = f"{cell.name}: another runner is at it"
        elif row.status == "failed":
            self.states[cell.key] = State.FAILED
            text = f"{cell.name}: failed: {row.error}"
        else:
            self.states[cell.key] = State.OK
            self.costs.learn(row)
            seconds = "" if row.wall_seconds is None else f", {duration(row.wall_seconds)}"
            text = f"{cell.name}: test MSE {row.test_mse:.4f}{seconds}"
        done = sum(state == State.OK for state in self.states.values())
        line = f"[{done}/{len(self.states)}] {text}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def _picture(self, running: Sequence[Key]) -> Group:
        table = Table(box=None)
        for column in ("cell", "epoch", "of at most", "for"):
            table.add_column(column, justify="left" if column == "cell" else "right")
        for key in running:
            cell = self.cells[key]
            passed = duration(time.monotonic() - self.started[key])
            table.add_row(cell.name, str(epochs_done(key)), str(cell.max_epochs), passed)
        left = f"{tally(self.states.values())}; {self.remaining()} to go"
        return Group(table, Text(left))

    def remaining(self) -> str:
        """Say how long all that is left will take."""
        known: list[Cost | None] = []
        for key, cell in self.cells.items():
            if self.states[key] not in (State.WAITING, State.RUNNING):
                continue
            cost = self.costs.of(cell)
            if cost is not None and self.states[key] == State.RUNNING and cell.max_epochs:
                done = min(1.0, epochs_done(key) / cell.max_epochs)
                cost = replace(cost, seconds=cost.seconds * (1 - done))
            known.append(cost)
        return total(known).text(self.workers)


def epochs_done(key: Key) -> int:
    """Return how many epochs a cell has on disk."""
    file = CellFolder.of(key).run.metrics
    try:
        return max(0, file.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0
