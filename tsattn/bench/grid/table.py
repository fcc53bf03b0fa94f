"""What stands in the results for the cells of a grid, and how a finished cell gets there."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile

from tsattn.bench.grid.cells import Cell
from tsattn.bench.rows import Key, Row, append_row, read_rows
from tsattn.errors import ConfigError, ExistsError


class State(StrEnum):
    """Where a cell is."""

    WAITING = "to run"
    RUNNING = "running"
    OK = "done"
    FAILED = "failed"
    CANNOT = "cannot run here"
    ELSEWHERE = "at another runner"


@dataclass(frozen=True)
class Results:
    """The folder of results: ``<model>.csv``, and ``checkpoints/<model>/`` with small weights."""

    folder: Path

    def file(self, model: str) -> Path:
        """Where the rows of a model are."""
        return self.folder / f"{model}.csv"

    def rows(self, models: Iterable[str]) -> dict[Key, Row]:
        """Return the rows that stand, by key.

        Raises:
            DataError: a damaged file, or one of a newer tsattn.
        """
        files = (self.file(model) for model in dict.fromkeys(models))
        return {row.key: row for file in files for row in read_rows(file)}

    def states(self, cells: Iterable[Cell], *, elsewhere: bool = False) -> dict[Key, State]:
        """Return where each cell is, before anything runs.

        Args:
            cells: the cells.
            elsewhere: whether they run on other machines, so that it does not matter what is here.
        """
        cells = list(cells)
        rows = self.rows(cell.key.model for cell in cells)
        return {cell.key: _state(cell, rows.get(cell.key), elsewhere=elsewhere) for cell in cells}

    def add(self, row: Row, weights: Path | bytes | None) -> Row:
        """Append a row and keep its weights where they are small; return what stands.

        Where another runner was first with the same cell, its row stands.

        Raises:
            DataError: the file is damaged, or stays locked; the row was not written.
        """

        def with_weights(row: Row) -> Row:
            if row.status != "ok" or weights is None:
                return row
            from tsattn.bench.grid.kept import keep  # brings in Lightning, which no plan needs

            return replace(row, checkpoint=keep(weights, self.folder, row.key))

        try:
            return append_row(self.file(row.model), row, complete=with_weights)
        except ExistsError:
            return self.rows([row.model])[row.key]

    def require_writable(self) -> None:
        """Make the folder, and refuse one that no row could be written to.

        Raises:
            ConfigError: it is a file, or nobody may write there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"--results {self.folder}: no rows can be written there ({error.strerror}); give "
                "a folder that can be written to"
            ) from error


def _state(cell: Cell, row: Row | None, *, elsewhere: bool) -> State:
    if row is not None:
        return State.OK if row.status == "ok" else State.FAILED
    return State.CANNOT if not elsewhere and cell.obstacle() else State.WAITING


def tally(states: Iterable[State]) -> str:
    """Count states in one line: ``12 done, 2 running, 466 to run``."""
    counted = Counter(states)
    return ", ".join(f"{counted[state]} {state}" for state in State if counted[state])
