"""What a cell costs here: from cells that ran, else from steps that were measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.measured import Measured, read_measured
from tsattn.bench.rows import Row
from tsattn.training.hardware import default_device, processor

_SECONDS_OF_A_TEST = 1.0


@dataclass(frozen=True)
class Cost:
    """What one cell takes.

    Attributes:
        seconds: from its first epoch to its last.
        peak_mib: largest memory of its process; None where unknown.
        at_most: whether it may be less, since training may stop early.
    """

    seconds: float
    peak_mib: float | None
    at_most: bool


class Costs:
    """Knows what cells cost on this machine.

    Cells that ran here with the same settings, threads and processor count first (their median);
    else the steps in the user's cache, which every run leaves there, times the epochs.

    Args:
        rows: rows that stand.
        threads: threads of each cell.
    """

    def __init__(self, rows: Iterable[Row], threads: int) -> None:
        self.threads = threads
        self.device = processor(default_device())
        self.ran: dict[str, list[Row]] = {}
        self.measured: dict[str, Measured | None] = {}
        for row in rows:
            self.learn(row)

    def learn(self, row: Row) -> None:
        """Take a finished row into account."""
        here = row.device == self.device and row.threads == self.threads
        if row.status == "ok" and row.wall_seconds is not None and here:
            self.ran.setdefault(row.config_hash, []).append(row)

    def forget(self, cell: Cell) -> None:
        """Read the steps of a cell's configuration again when they are next asked for."""
        self.measured.pop(cell.key.config_hash, None)

    def of(self, cell: Cell) -> Cost | None:
        """Return what a cell takes; None where nothing is known."""
        if cell.words[0] == "test":
            return Cost(_SECONDS_OF_A_TEST, None, at_most=False)
        name = cell.key.config_hash
        if rows := self.ran.get(name):
            peaks = [row.peak_mib for row in rows if row.peak_mib is not None]
            seconds = median(row.wall_seconds or 0.0 for row in rows)
            return Cost(seconds, max(peaks, default=None), at_most=False)
        if name not in self.measured:
            self.measured[name] = read_measured(cell, self.threads, self.device)
        found = self.measured[name]
        if found is None:
            return None
        return Cost(cell.max_epochs * found.epoch_seconds, found.peak_mib, at_most=True)
