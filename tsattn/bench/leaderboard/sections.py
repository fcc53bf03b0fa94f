"""What is known of one dataset: its tables, how the claims stand, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tsattn.bench.leaderboard.cells import Board, Cell, rank
from tsattn.bench.leaderboard.claims import Comparison, compare_with
from tsattn.bench.leaderboard.overview import difference, ours, papers
from tsattn.bench.leaderboard.places import Places
from tsattn.bench.leaderboard.published import DATASETS, MODELS, SOURCES, quoted
from tsattn.bench.leaderboard.scored import scored
from tsattn.bench.leaderboard.sentences import beaten_by_floor, ranked, sentence
from tsattn.bench.leaderboard.tables import (
    FINE,
    FLOORS,
    OTHERS,
    Item,
    Table,
    interval,
    label,
    network_label,
    number,
    probability,
    spread,
    table,
    word,
)
from tsattn.data import CATALOG
from tsattn.errors import DataError

NOT_RUN = "not-run.yaml"
"""File among the results that says why cells are empty: a list of dataset, reason, and model."""


@dataclass(frozen=True)
class Network:
    """One model on one dataset.

    Attributes:
        title: the model's name, with its protocol where that is another.
        sentence: how the claim stands.
        ranked: over which seeds best and second best were found.
        table: a line for every activation.
        cells: the cells it was made from.
        comparisons: every activation beside identity.
    """

    title: str
    sentence: str
    ranked: str
    table: Table
    cells: Mapping[str, Cell]
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class Missing:
    """Cells without a figure.

    Attributes:
        what: model and activations.
        reason: why there is none.
        commands: what fills them.
    """

    what: str
    reason: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One dataset.

    Attributes:
        dataset: file name of its recipe.
        title: its name.
        networks: models with a value activation.
        beside: floors, DLinear and peers.
        quoted: what others published.
        missing: cells without a figure.
    """

    dataset: str
    title: str
    networks: tuple[Network, ...]
    beside: Table | None
    quoted: Table | None
    missing: tuple[Missing, ...]


def sections(board: Board, reasons: Sequence[Mapping[str, str]], places: Places) -> list[Section]:
    """Return a section for every dataset of Table 2, and for others that have rows."""
    return [
        Section(
            dataset=dataset,
            title=label(dataset),
            networks=tuple(
                _network(board, protocol, model, dataset)
                for protocol, model in board.networks(dataset)
                if any(c.rows for c in board.row_of_cells(protocol, model, dataset).values())
            ),
            beside=_beside(board.others(dataset)),
            quoted=_quoted(dataset),
            missing=tuple(_missing(board, dataset, reasons, places)),
        )
        for dataset in board.datasets()
    ]


def read_reasons(results: Path) -> list[dict[str, str]]:
    """Read why cells are empty, where the results say so.

    Raises:
        DataError: the file is no list of dataset, reason and perhaps model.
    """
    path = results / NOT_RUN
    if not path.is_file():
        return []
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is no YAML: {error}") from error
    for place, entry in enumerate(content if isinstance(content, list) else [content], start=1):
        keys = entry.keys() if isinstance(entry, dict) else set()
        if not {"dataset", "reason"} <= keys <= {"dataset", "reason", "model"}:
            raise DataError(
                f"{path}, entry {place}: expected dataset, reason and perhaps model, got {entry!r}"
            )
    return content


def _network(board: Board, protocol: str, model: str, dataset: str) -> Network:
    cells = board.row_of_cells(protocol, model, dataset)
    published = papers(cells)
    comparisons = compare_with("identity", cells, published)
    return Network(
        title=network_label(protocol, model),
        sentence=" ".join([sentence(cells, comparisons, published), *_floor(cells, board)]),
        ranked=ranked(rank(cells)),
        table=_activations(cells, comparisons, published),
        cells=cells,
        comparisons=comparisons,
    )


def _floor(cells: Mapping[str, Cell], board: Board) -> list[str]:
    """Say that an untrained forecast is better than all of these, where one is."""
    trained = [cell for cell in cells.values() if cell.rows]
    others = board.others(trained[0].dataset) if trained else []
    floors = [
        cell
        for cell in others
        if cell.model in FLOORS and cell.rows and scored(cell.rows[0]) == scored(trained[0].rows[0])
    ]
    return beaten_by_floor(trained, floors)


def _activations(
    cells: Mapping[str, Cell],
    comparisons: Sequence[Comparison],
    published: Mapping[str, float | None],
) -> Table:
    titles = ["value activation", "MSE", "seeds", "paper", "MSE − paper", "as published"]
    titles += ["as published − paper", "MAE", "MSE − identity [95 %]", "p (Holm)", "beats identity"]
    ranking = rank(dict(cells))
    beside = {comparison.activation: comparison for comparison in comparisons}
    rows: list[list[Item]] = []
    for name, cell in cells.items():
        column, paper, compared = "test_mse_as_published", published[name], beside.get(name)
        row = [word(label(name)), ours(cell, ranking, count=False, digits=FINE)]
        row.append(Item(str(len(cell.rows) or ""), len(cell.rows)))
        row += [number(paper), difference(cell, paper)]
        row += [_mean(cell, column), difference(cell, paper, column), _mean(cell, "test_mae")]
        if compared:
            row.append(Item(interval(compared.difference), compared.difference.mean))
            row.append(Item(probability(compared.adjusted_p), compared.adjusted_p))
            row.append(word(compared.verdict))
        else:
            row += [word(""), word(""), word("")]
        rows.append(row)
    return table(titles, rows)


def _beside(cells: Sequence[Cell]) -> Table | None:
    rows: list[list[Item]] = []
    for cell in cells:
        name = word(network_label(cell.protocol, cell.model))
        kind = "floor" if cell.model in FLOORS else "trained"
        if not cell.rows:
            text = f"{len(cell.failed)} failed"
            rows.append([name, word(kind), word(text), *[word("")] * 6])
            continue
        row = [name, word(kind), _mean(cell, "test_mse")]
        row += [Item(str(len(cell.rows)), len(cell.rows)), _mean(cell, "test_mae")]
        row += [_only(cell, "context"), _only(cell, "test_windows")]
        row += [_mean(cell, "test_mse_as_published"), _only(cell, "windows_as_published")]
        rows.append(row)
    titles = ["forecast", "kind", "MSE", "seeds", "MAE", "context", "windows"]
    titles += ["as published", "windows as published"]
    return table(titles, rows, words=2) if rows else None


def _mean(cell: Cell, column: str) -> Item:
    return spread(cell.mean(column), cell.deviation(column), digits=FINE)


def _only(cell: Cell, column: str) -> Item:
    values = list(dict.fromkeys(getattr(row, column) for row in cell.rows))
    return Item(", ".join(map(str, values)), values[0] if len(values) == 1 else None)


def _quoted(dataset: str) -> Table | None:
    figures = [q for q in quoted() if q.dataset == dataset and q.source != "table2"]
    rows = [
        [word(SOURCES[q.source]), word(label(q.model)), number(q.test_mse), number(q.test_mae)]
        for q in figures
    ]
    return table(["published by", "model", "MSE", "MAE"], rows, words=2) if rows else None


def wanted(dataset: str) -> list[tuple[str, str]]:
    """Return protocol and model of what shall be run with all activations on a dataset."""
    again = [("table2_b", "transformer")] if dataset == "illness" else []
    return [("table2", model) for model in MODELS] + again


def _missing(
    board: Board, dataset: str, reasons: Sequence[Mapping[str, str]], places: Places
) -> list[Missing]:
    if dataset not in DATASETS:
        return []
    info = next((i for i in CATALOG.values() if i.name.casefold() == dataset), None)
    fetch = (f"tsattn data fetch {info.name}",) if info and not info.embedded else ()
    found: list[Missing] = []
    for protocol, model in wanted(dataset):
        cells = board.row_of_cells(protocol, model, dataset)
        empty = [label(name) for name, cell in cells.items() if not cell.rows and not cell.failed]
        if empty:
            names = "all activations" if len(empty) == len(cells) else ", ".join(empty)
            what = f"{network_label(protocol, model)}: {names}"
            command = f"{places.run(protocol, model)} --only dataset={dataset},model={model}"
            found.append(Missing(what, _reason(reasons, dataset, model), (*fetch, command)))
    there = {cell.model for cell in board.others(dataset)}
    absent = [model for model in OTHERS if model not in there]
    if absent:
        what = "Beside them: " + ", ".join(label(model) for model in absent)
        command = f"{places.run('table2', absent[0])} --only dataset={dataset}"
        found.append(Missing(what, _reason(reasons, dataset, ""), (*fetch, command)))
    return found


def _reason(reasons: Sequence[Mapping[str, str]], dataset: str, model: str) -> str:
    """Return why cells are empty: what was written down for them, or that nobody ran them."""
    for entry in reasons:
        if entry["dataset"] == dataset and entry.get("model", model) == model:
            return entry["reason"]
    return "not run yet"
