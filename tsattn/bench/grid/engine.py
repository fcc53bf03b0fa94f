"""What runs cells: an engine takes them in their order and says when each is over."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tsattn.bench.grid.cells import Cell
from tsattn.bench.rows import Key, Row

LIVES = 2
"""How often a cell is started whose process dies without a word."""


@dataclass(frozen=True)
class Finished:
    """A cell that is over.

    Attributes:
        cell: the cell.
        row: its row; None where another runner is at it or was first, or it cannot run there.
        weights: its best checkpoint as safetensors; None where it has none.
        obstacle: why it cannot run where it was to; mostly empty.
    """

    cell: Cell
    row: Row | None
    weights: Path | bytes | None = None
    obstacle: str = ""


@runtime_checkable
class Engine(Protocol):
    """Runs cells."""

    def run(
        self, cells: list[Cell], wanted: Callable[[Cell], bool], tick: Callable[[list[Key]], None]
    ) -> Generator[Finished, None, None]:
        """Run cells in their order and yield each when it is over.

        Args:
            cells: the cells.
            wanted: asked when a cell's turn has come; another runner may have finished it.
            tick: called a few times a second with the keys of the running cells.

        Closing the iterator ends all that runs.
        """
        ...
