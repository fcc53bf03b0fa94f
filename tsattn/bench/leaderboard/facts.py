"""What makes the figures trustworthy: what was scored, where, with what, for how long."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tsattn.bench.leaderboard.cells import Board, Cell, reading_order
from tsattn.bench.leaderboard.tables import (
    Item,
    Table,
    label,
    network_label,
    number,
    table,
    word,
)
from tsattn.bench.rows import Row

_SHORT = 12


@dataclass(frozen=True)
class Facts:
    """The footer.

    Attributes:
        scored: data, borders, windows and recipe, a line for every model and dataset.
        machines: hardware, threads and precision, with the number of runs.
        versions: versions and commits, with the number of runs.
        costs: wall time and memory of every cell.
        runs: every run, for those who want to look.
    """

    scored: Table
    machines: Table
    versions: Table
    costs: Table
    runs: Table


def facts(board: Board) -> Facts:
    """Collect the footer from the finished runs."""
    rows = board.rows
    return Facts(
        scored=_scored(rows),
        machines=_counted(
            rows,
            ["device", "devices", "threads", "precision", "attention"],
            lambda r: (r.device, r.devices, r.threads, r.precision, r.attention),
        ),
        versions=_counted(
            rows,
            ["tsattn", "torch", "lightning", "python", "commit"],
            lambda r: (r.tsattn, r.torch, r.lightning, r.python, short_commit(r.commit)),
        ),
        costs=_costs([cell for _, cell in sorted(board.cells.items()) if cell.rows]),
        runs=_runs(rows),
    )


def short_commit(commit: str) -> str:
    """Return the first twelve digits of each commit, and whether there were changes beside it."""
    parts = [one.partition("-") for one in commit.split("; ")]
    return "; ".join(head[:_SHORT] + dash + rest for head, dash, rest in parts)


def _scored(rows: Sequence[Row]) -> Table:
    titles = ["dataset", "model", "recipe", "data sha256", "train rows", "val rows", "test rows"]
    titles += ["scaler", "checkpoint", "context", "horizon", "windows", "left out", "as published"]
    found: dict[tuple[object, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (reading_order(r.protocol, r.model, r.dataset), r.seed)):
        setting = (row.dataset, row.protocol, row.model, row.recipe, row.data_sha256)
        setting += (row.train_rows, row.val_rows, row.test_rows, row.scaler, row.checkpoint_rule)
        setting += (row.context, row.horizon, row.test_windows, row.test_windows_dropped)
        found.setdefault((*setting, row.windows_as_published), row)
    lines = [
        [
            word(label(row.dataset)),
            word(network_label(row.protocol, row.model)),
            word(row.recipe),
            word(row.data_sha256[:_SHORT]),
            *(word(rows) for rows in (row.train_rows, row.val_rows, row.test_rows)),
            word(row.scaler),
            word(row.checkpoint_rule),
            *(number(size, 0) for size in (row.context, row.horizon, row.test_windows)),
            *(number(size, 0) for size in (row.test_windows_dropped, row.windows_as_published)),
        ]
        for row in found.values()
    ]
    return table(titles, lines, words=9)


def _counted(
    rows: Sequence[Row], titles: Sequence[str], of: Callable[[Row], tuple[object, ...]]
) -> Table:
    counts: dict[tuple[object, ...], int] = {}
    for row in rows:
        counts[of(row)] = counts.get(of(row), 0) + 1
    lines = [
        [*(word("" if value is None else str(value)) for value in values), Item(str(n), n)]
        for values, n in sorted(counts.items(), key=lambda pair: tuple(map(str, pair[0])))
    ]
    return table([*titles, "runs"], lines, words=len(titles))


def _costs(cells: Sequence[Cell]) -> Table:
    titles = ["dataset", "model", "value activation", "seeds", "wall time", "each", "peak MiB"]
    titles += ["epochs", "parameters", "precision"]
    lines: list[list[Item]] = []
    for cell in sorted(cells, key=lambda c: reading_order(c.protocol, c.model, c.dataset)):
        seconds = [row.wall_seconds for row in cell.rows if row.wall_seconds is not None]
        peaks = [row.peak_mib for row in cell.rows if row.peak_mib is not None]
        epochs = [row.epochs for row in cell.rows if row.epochs is not None]
        parameters = cell.rows[0].parameters
        total = math.fsum(seconds) if seconds else None
        lines.append(
            [
                word(label(cell.dataset)),
                word(network_label(cell.protocol, cell.model)),
                word(label(cell.activation)),
                Item(str(len(cell.rows)), len(cell.rows)),
                duration(total),
                duration(total / len(seconds) if total is not None else None),
                number(max(peaks) if peaks else None, 0),
                number(sum(epochs) / len(epochs) if epochs else None, 0),
                Item("" if parameters is None else f"{parameters:,}", parameters),
                word(", ".join(sorted({row.precision for row in cell.rows} - {""}))),
            ]
        )
    return table(titles, lines, words=3)


def duration(seconds: float | None) -> Item:
    """Write seconds as hours and minutes, or minutes and seconds."""
    if seconds is None:
        return Item("")
    if seconds < 60:
        return Item(f"{seconds:.1f} s", seconds)
    minutes = round(seconds / 60)
    if seconds < 3600:
        whole = round(seconds)
        return Item(f"{whole // 60} min {whole % 60:02d} s", seconds)
    return Item(f"{minutes // 60} h {minutes % 60:02d} min", seconds)


def _runs(rows: Sequence[Row]) -> Table:
    titles = ["protocol", "dataset", "model", "value activation", "checkpoint", "seed", "MSE"]
    titles += ["MAE", "as published", "val. MSE", "best epoch", "epochs", "wall time"]
    titles += ["precision", "device", "threads"]
    lines = [
        [
            word(row.protocol),
            word(label(row.dataset)),
            word(label(row.model)),
            word(label(row.value_activation)),
            word(row.checkpoint),
            number(row.seed, 0),
            number(row.test_mse, 4),
            number(row.test_mae, 4),
            number(row.test_mse_as_published, 4),
            number(row.val_mse, 4),
            number(row.best_epoch, 0),
            number(row.epochs, 0),
            duration(row.wall_seconds),
            word(row.precision),
            word(row.device),
            number(row.threads, 0),
        ]
        for row in rows
    ]
    return table(titles, lines, words=5)
