"""`tsattn bench plan`: which cells there are, what is done, and what the rest will cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Table

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.costs import Cost, Costs
from tsattn.bench.grid.table import State
from tsattn.bench.rows import Key
from tsattn.data.amounts import counted
from tsattn.training.amounts import duration, memory

_TO_DO = (State.WAITING, State.RUNNING)


@dataclass(frozen=True)
class Total:
    """What cells will take together.

    Attributes:
        seconds: of all whose cost is known, one after the other.
        longest: of one of them, which no further worker makes shorter.
        at_most: whether some may stop early.
        unknown: cells whose cost is not known.
    """

    seconds: float
    longest: float
    at_most: bool
    unknown: int

    def text(self, workers: int = 1) -> str:
        """Say it: ``at most 3.2 h, and 12 cells not measured``."""
        parts: list[str] = []
        shared = max(self.seconds / workers, self.longest)
        if self.seconds or not self.unknown:
            parts.append(("at most " if self.at_most else "") + duration(shared))
        if self.unknown:
            parts.append(f"{counted(self.unknown, 'cell')} not measured")
        return ", and ".join(parts)


def total(costs: Iterable[Cost | None]) -> Total:
    """Add up what cells cost."""
    costs = list(costs)
    known = [cost for cost in costs if cost is not None]
    return Total(
        seconds=sum(cost.seconds for cost in known),
        longest=max((cost.seconds for cost in known), default=0.0),
        at_most=any(cost.at_most for cost in known),
        unknown=len(costs) - len(known),
    )


def show_groups(
    cells: Sequence[Cell], states: Mapping[Key, State], costs: Costs, console: Console
) -> None:
    """Print a line for each model and dataset."""
    table = Table(title=counted(len(cells), "cell"))
    for column in ("protocol", "model", "dataset"):
        table.add_column(column)
    for column in ("cells", "done", "failed", "to run", "a cell", "memory", "all to run"):
        table.add_column(column, justify="right")
    table.add_column("cannot run here")

    def group(cell: Cell) -> tuple[str, str, str]:
        return cell.key[:3]

    order = {name: place for place, name in enumerate(dict.fromkeys(map(group, cells)))}
    for name, members in groupby(sorted(cells, key=lambda c: order[group(c)]), group):
        table.add_row(*name, *_counts(list(members), states, costs))
    console.print(table)


def _counts(cells: Sequence[Cell], states: Mapping[Key, State], costs: Costs) -> list[str]:
    count = {state: sum(states[cell.key] == state for cell in cells) for state in State}
    to_do = [cell for cell in cells if states[cell.key] in _TO_DO]
    one = costs.of(cells[0])
    needed = None if one is None else one.peak_mib
    return [
        str(len(cells)),
        str(count[State.OK] or ""),
        str(count[State.FAILED] or ""),
        str(len(to_do) or ""),
        "" if one is None else total([one]).text(),
        "" if needed is None else memory(needed),
        total(map(costs.of, to_do)).text() if to_do else "",
        next((c.obstacle() or "" for c in cells if states[c.key] == State.CANNOT), ""),
    ]


def show_cells(
    cells: Sequence[Cell], states: Mapping[Key, State], costs: Costs, console: Console
) -> None:
    """Print a line for each cell, in the order in which they run."""
    table = Table(title=counted(len(cells), "cell"))
    for column in ("protocol", "model", "dataset", "activation", "seed", "where it is", "takes"):
        table.add_column(column, justify="right" if column in ("seed", "takes") else "left")
    for cell in cells:
        state = states[cell.key]
        takes = total([costs.of(cell)]).text() if state in _TO_DO else ""
        said = f"{state}: {cell.obstacle()}" if state == State.CANNOT else str(state)
        table.add_row(*(str(part) for part in cell.key[:5]), said, takes)
    console.print(table)


def summary(cells: Sequence[Cell], states: Mapping[Key, State], costs: Costs, workers: int) -> str:
    """Say in a line what is left and how long it takes."""
    to_do = [cell for cell in cells if states[cell.key] in _TO_DO]
    if not to_do:
        return "nothing is left to run here"
    left = total(map(costs.of, to_do)).text(workers)
    how = f"--workers {workers} --threads {costs.threads}"
    return f"{counted(len(to_do), 'cell')} to run: {left} with {how}"
