"""The runs that failed, and what runs them again."""

from dataclasses import dataclass

from tsattn.bench.leaderboard.cells import Board
from tsattn.bench.leaderboard.places import Places
from tsattn.bench.leaderboard.tables import label, network_label
from tsattn.bench.rows import Row


@dataclass(frozen=True)
class Failed:
    """A run without scores.

    Attributes:
        what: the cell and its seed.
        error: why it failed.
        command: what runs it again.
    """

    what: str
    error: str
    command: str


def failures(board: Board, places: Places) -> list[Failed]:
    """Return the failed runs that count, in a fixed order."""
    return [
        Failed(
            f"{label(row.dataset)}, {network_label(row.protocol, row.model)}, "
            f"{label(row.value_activation) or 'no activation'}, seed {row.seed}",
            row.error,
            f"{places.run(row.protocol, row.model)} --only {_selection(row)} --retry-failed",
        )
        for row in board.failed
    ]


def _selection(row: Row) -> str:
    chosen = {"model": row.model, "dataset": row.dataset, "activation": row.value_activation}
    chosen["seed"] = str(row.seed)
    return ",".join(f"{name}={value}" for name, value in chosen.items() if value)
