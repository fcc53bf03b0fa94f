"""The table in the layout of the paper, and how its claims stand."""

from collections.abc import Mapping

from tsattn.bench.leaderboard.cells import Board, Cell, Ranking, rank
from tsattn.bench.leaderboard.claims import Verdict, any_beats, compare_with, is_best
from tsattn.bench.leaderboard.published import (
    ACTIVATIONS,
    DATASETS,
    MODELS,
    REPEATED,
    horizon_of,
    table2_mse,
)
from tsattn.bench.leaderboard.tables import (
    Item,
    Table,
    interval,
    label,
    network_label,
    number,
    signed,
    spread,
    table,
    word,
)


def overview(board: Board) -> list[Table]:
    """Return Table 2 in two halves of four datasets: ours, the paper's, the difference."""
    halves = (DATASETS[:4], DATASETS[4:])
    return [_half(board, datasets) for datasets in halves]


def _half(board: Board, datasets: tuple[str, ...]) -> Table:
    columns = ["model", "value activation"]
    for dataset in datasets:
        columns += [label(dataset), "paper", "diff."]
    rows: list[list[Item]] = []
    for model in MODELS:
        cells = {d: board.row_of_cells("table2", model, d) for d in datasets}
        rankings = {d: rank(cells[d]) for d in datasets}
        for activation in ACTIVATIONS:
            row = [word(label(model)), word(label(activation))]
            for dataset in datasets:
                cell = cells[dataset][activation]
                paper = table2_mse(model, activation, dataset)
                row += [ours(cell, rankings[dataset]), number(paper), difference(cell, paper)]
            rows.append(row)
    return table(columns, rows, words=2)


def ours(cell: Cell, ranking: Ranking, *, count: bool = True, digits: int = 3) -> Item:
    """Return our figure, marked where it is best or second best; what is not float32 says so."""
    failed = f"{len(cell.failed)} failed" if cell.failed else ""
    title = ", ".join(f"seed {seed}: {mse:.4f}" for seed, mse in cell.scores().items())
    item = spread(
        cell.mean(),
        cell.deviation(),
        len(cell.rows) if count else None,
        ranking.mark(cell.activation),
        title,
        digits,
    )
    told = ", ".join(part for part in (item.text, cell.precisions, failed) if part)
    return Item(told, item.sort, item.mark, title)


def difference(cell: Cell, paper: float | None, column: str = "test_mse") -> Item:
    """Return our figure minus the paper's."""
    mean = cell.mean(column)
    return signed(None if mean is None or paper is None else mean - paper)


def papers(cells: Mapping[str, Cell]) -> dict[str, float | None]:
    """Return the paper's figures for the cells of a model and dataset that repeat its table.

    Runs of a protocol of one's own, or with another horizon, have none: they forecast something
    else.
    """
    return {
        name: table2_mse(cell.model, name, cell.dataset)
        if cell.protocol in REPEATED
        and all(row.horizon == horizon_of(cell.dataset) for row in cell.rows)
        else None
        for name, cell in cells.items()
    }


def standing(board: Board) -> Table | None:
    """Return how the claims stand, a line for every model and dataset with an identity run."""
    rows: list[list[Item]] = []
    for dataset in board.datasets():
        for protocol, model in board.networks(dataset):
            cells = board.row_of_cells(protocol, model, dataset)
            if not cells["identity"].rows or len(_started(cells)) < 2:
                continue
            ranking = rank(cells)
            published = papers(cells)
            to_identity = compare_with("identity", cells, published)
            tanh = next((c for c in to_identity if c.activation == "tanh"), None)
            others = len(ACTIVATIONS) - 1
            best = is_best(compare_with("tanh", cells, published), others)
            rows.append(
                [
                    word(label(dataset)),
                    word(network_label(protocol, model)),
                    word(any_beats(to_identity, others)),
                    word(tanh.verdict if tanh else Verdict.UNDECIDED),
                    word(best if tanh else Verdict.UNDECIDED),
                    Item(interval(tanh.difference), tanh.difference.mean) if tanh else word(""),
                    word(f"{len(_started(cells))} x {len(ranking.seeds)}"),
                ]
            )
    titles = ["dataset", "model", "an activation beats identity", "Tanh beats identity"]
    titles += ["Tanh is the best", "Tanh − identity [95 %]", "activations x seeds"]
    return table(titles, rows, words=5) if rows else None


def _started(cells: dict[str, Cell]) -> list[str]:
    return [name for name, cell in cells.items() if cell.rows]
