"""From the rows of results to the cells of a table, and which cells may be compared."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsattn.bench.leaderboard.published import ACTIVATIONS, DATASETS, MODELS
from tsattn.bench.leaderboard.scored import of_the_same_windows
from tsattn.bench.leaderboard.tables import OTHERS, Mark
from tsattn.bench.rows import Row, read_rows
from tsattn.errors import DataError

Place = tuple[str, str, str, str]
"""Protocol, model, dataset, value activation."""

FLOAT32 = "32-true"
"""The precision that cells have unless they say otherwise."""


@dataclass(frozen=True)
class Cell:
    """What is known of one setting: a row per seed.

    Attributes:
        protocol: ``table2`` and others.
        model: file name of its results, ``patchtst`` for instance.
        dataset: file name of the dataset's recipe.
        activation: the value activation; empty where a model has none.
        rows: the finished runs, by seed.
        failed: the runs that failed and were not repeated with success, by seed.
    """

    protocol: str
    model: str
    dataset: str
    activation: str
    rows: tuple[Row, ...]
    failed: tuple[Row, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the finished runs."""
        return tuple(row.seed for row in self.rows)

    def scores(self, column: str = "test_mse") -> dict[int, float]:
        """Return a score by seed, of the seeds that have it."""
        found = {row.seed: getattr(row, column) for row in self.rows}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, column: str = "test_mse", seeds: Iterable[int] | None = None) -> float | None:
        """Return the mean over seeds, by default over all of them; None without any."""
        scores = self.scores(column)
        values = [scores[seed] for seed in sorted(scores if seeds is None else seeds)]
        return math.fsum(values) / len(values) if values else None

    @property
    def precisions(self) -> str:
        """What the finished runs were computed in where it is not float32, else empty."""
        other = {row.precision for row in self.rows} - {"", FLOAT32}
        return ", ".join(sorted(other))

    def deviation(self, column: str = "test_mse") -> float | None:
        """Return the standard deviation over seeds (n - 1 below the line), from two on."""
        values = list(self.scores(column).values())
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Ranking:
    """Which activations of one model and dataset are best and second best.

    Attributes:
        seeds: the seeds that were compared: those that every activation with a result has.
        order: activations by their mean over these seeds, the best first; empty without any.
    """

    seeds: tuple[int, ...]
    order: tuple[str, ...]

    def mark(self, activation: str) -> Mark:
        """Return ``best`` or ``second``; of two that were compared nobody is the second best."""
        if activation in self.order[:1]:
            return "best"
        return "second" if activation in self.order[1:2] and len(self.order) > 2 else ""


class Board:
    """All cells of a folder of results.

    Every comparison is among runs of one configuration: of a protocol, model and dataset those rows
    count whose configuration has the most finished runs; of several with as many one in float32,
    and then the newest. Of a protocol and dataset only rows count that were scored on the same data
    and windows (`of_the_same_windows`).

    Args:
        rows: rows in the order of their files.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        groups: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
        for row in of_the_same_windows(rows):
            settings = groups.setdefault((row.protocol, row.model, row.dataset), {})
            settings.setdefault(row.config_hash, []).append(row)
        counted = [row for settings in groups.values() for row in _main(settings)]
        latest: dict[Place, dict[int, Row]] = {}
        for row in counted:
            place = (row.protocol, row.model, row.dataset, row.value_activation)
            latest.setdefault(place, {})[row.seed] = row
        self.cells = {place: _cell(place, seeds) for place, seeds in latest.items()}
        kept = {id(row) for row in counted}
        self.left_out = [row for row in rows if id(row) not in kept]

    def cell(self, protocol: str, model: str, dataset: str, activation: str) -> Cell:
        """Return a cell, an empty one where nothing was run."""
        place = (protocol, model, dataset, activation)
        return self.cells.get(place) or Cell(*place, rows=(), failed=())

    def row_of_cells(self, protocol: str, model: str, dataset: str) -> dict[str, Cell]:
        """Return the cells of all six activations."""
        return {name: self.cell(protocol, model, dataset, name) for name in ACTIVATIONS}

    def networks(self, dataset: str) -> list[tuple[str, str]]:
        """Return protocol and model of what has activations on a dataset, Table 2's first."""
        found = {(p, m) for p, m, d, activation in self.cells if d == dataset and activation}
        table2 = [("table2", model) for model in MODELS] if dataset in DATASETS else []
        return table2 + sorted(found - set(table2))

    def others(self, dataset: str) -> list[Cell]:
        """Return the cells of models without value activation: floors, DLinear, peers."""
        found = [c for c in self.cells.values() if c.dataset == dataset and not c.activation]

        def order(cell: Cell) -> tuple[int, str, str]:
            known = OTHERS.index(cell.model) if cell.model in OTHERS else len(OTHERS)
            return known, cell.model, cell.protocol

        return sorted(found, key=order)

    def datasets(self) -> list[str]:
        """Return Table 2's datasets, and after them any others that have rows."""
        return [*DATASETS, *sorted({place[2] for place in self.cells} - set(DATASETS))]

    @property
    def rows(self) -> list[Row]:
        """The finished runs that count, in a fixed order."""
        return [row for _, cell in sorted(self.cells.items()) for row in cell.rows]

    @property
    def failed(self) -> list[Row]:
        """The failed runs that count, in a fixed order."""
        return [row for _, cell in sorted(self.cells.items()) for row in cell.failed]


def _main(settings: dict[str, list[Row]]) -> list[Row]:
    """Return the rows of the configuration that counts."""

    def weight(rows: list[Row]) -> tuple[int, bool, str]:
        finished = [row for row in rows if row.status == "ok"]
        exact = all(row.precision in ("", FLOAT32) for row in rows)
        return len(finished), exact, max(row.finished for row in rows)

    return max(settings.values(), key=weight)


def _cell(place: Place, seeds: dict[int, Row]) -> Cell:
    ordered = [seeds[seed] for seed in sorted(seeds)]
    finished = tuple(row for row in ordered if row.status == "ok")
    return Cell(*place, rows=finished, failed=tuple(r for r in ordered if r.status != "ok"))


def read_board(results: Path) -> Board:
    """Read every ``*.csv`` of a folder of results.

    Raises:
        DataError: there is no such folder, or a file that is no file of results; the message
            names file and line.
    """
    if not results.is_dir():
        raise DataError(f"no folder {results}; give the folder of results with --results")
    return Board([row for file in result_files(results) for row in read_rows(file)])


def result_files(results: Path) -> list[Path]:
    """Return the files of rows in a folder of results, by name."""
    return sorted(results.glob("*.csv"))


def reading_order(protocol: str, model: str, dataset: str) -> tuple[int | str, ...]:
    """Return by what lines are ordered: Table 2's datasets and models first, as it has them."""
    models, datasets = (*MODELS, *OTHERS), DATASETS

    def place(name: str, known: Sequence[str]) -> tuple[int, str]:
        return (known.index(name), "") if name in known else (len(known), name)

    return *place(dataset, datasets), *place(protocol, ("table2",)), *place(model, models)


def rank(cells: dict[str, Cell]) -> Ranking:
    """Order activations fairly: by their mean over the seeds that all of them have.

    An activation without any result does not take part; one with fewer seeds than the others makes
    all of them be compared over its seeds alone, so that no cell wins by a lucky or a missing seed.
    With fewer than two activations, or without a common seed, there is no order.
    """
    started = {name: set(cell.seeds) for name, cell in cells.items() if cell.rows}
    shared = tuple(sorted(set.intersection(*started.values()))) if started else ()
    if len(started) < 2 or not shared:
        return Ranking((), ())
    means = {name: cells[name].mean(seeds=shared) or 0.0 for name in started}
    return Ranking(shared, tuple(sorted(started, key=lambda name: (means[name], name))))
