"""`tsattn bench run`: fill the table, and go on where it was left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from tsattn.bench.grid.cell import CellFolder
from tsattn.bench.grid.cells import Cell, read_cells, select
from tsattn.bench.grid.processes import Processes
from tsattn.bench.grid.progress import Progress
from tsattn.bench.grid.table import Results, State, tally
from tsattn.bench.machine import usable_cores
from tsattn.errors import ConfigError

_INTERRUPTED = 130


def grid_command(words: Sequence[str]) -> int:
    """Run ``tsattn bench run`` as typed after ``tsattn bench``.

    Returns:
        The exit status: 1 where a cell failed, 130 after Ctrl-C.

    Raises:
        ConfigError: a grid, a selection or a number that cannot work.
        DataError: results that are damaged or of a newer tsattn; nothing was changed.
    """
    given = _parser().parse_args(list(words))
    options: Namespace = given[given.subcommand]
    cells = select(read_cells(options.grid), options.only, options.seeds)
    return _run(cells, Results(options.results), options)


def _run(cells: list[Cell], results: Results, options: Namespace) -> int:
    for name in ("workers", "threads"):
        if options[name] < 1:
            raise ConfigError(f"--{name} must be at least 1, got {options[name]}")
    states = results.states(cells)
    todo = [State.WAITING, *([State.FAILED] if options.retry_failed else [])]
    chosen = [cell for cell in cells if states[cell.key] in todo]
    console = Console()
    console.print(f"{len(cells)} cells: {tally(states.values())}", markup=False)
    for line in obstacles(cells, states):
        console.print(line, style="yellow", markup=False)
    states |= dict.fromkeys((cell.key for cell in chosen), State.WAITING)
    engine = Processes(options.workers, options.threads)
    progress = Progress(cells, states, console)

    def wanted(cell: Cell) -> bool:
        return results.states([cell])[cell.key] in todo and not CellFolder.of(cell.key).is_busy

    finished = engine.run(chosen, wanted, progress.tick)
    try:
        with progress:
            for over in finished:
                row = over.row and results.add(over.row, engine.weights(over.cell))
                progress.over(
                    over.cell, row or results.rows([over.cell.key.model]).get(over.cell.key)
                )
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on, each cell from its last epoch")
        return _INTERRUPTED
    finally:
        finished.close()
    console.print(f"{len(cells)} cells: {tally(states.values())}", markup=False)
    return 1 if any(states[cell.key] == State.FAILED for cell in chosen) else 0


def obstacles(cells: Sequence[Cell], states: Any) -> list[str]:
    """Say once for each reason which cells cannot run here, and how many failed earlier."""
    reasons: dict[str, int] = {}
    for cell in cells:
        if states[cell.key] == State.CANNOT:
            reason = cell.obstacle() or ""
            reasons[reason] = reasons.get(reason, 0) + 1
    lines = [f"{count} cells cannot run here: {reason}" for reason, count in reasons.items()]
    failed = sum(states[cell.key] == State.FAILED for cell in cells)
    if failed:
        lines.append(f"{failed} cells failed earlier; --retry-failed runs them again")
    return lines


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="tsattn bench", description="A table of cells, by many runs.")
    commands = parser.add_subcommands()
    for name, (options, about) in _SUBCOMMANDS.items():
        command = ArgumentParser()
        options(command.add_argument)
        commands.add_subcommand(name, command, help=about)
    return parser


def _common_options(add: Callable[..., Any]) -> None:
    default = ["configs/bench/table2.yaml"]
    add("--grid", nargs="+", type=str, default=default, help="files of cells, of configs/bench")
    add("--only", type=str | None, help="name=value,..., of protocol, model, dataset, activation")
    add("--seeds", type=int | None, help="the first so many seeds alone")
    add("--results", type=Path, default=Path("results"), help="folder of the rows")
    add("--workers", type=int, default=usable_cores(), help="cells at a time")
    add("--threads", type=int, default=1, help="threads of each cell")


def _run_options(add: Callable[..., Any]) -> None:
    _common_options(add)
    add("--retry-failed", action="store_true", help="run cells again that failed earlier")


_SUBCOMMANDS = {"run": (_run_options, "fill the table; what is done is skipped")}
GRID_COMMANDS = tuple(_SUBCOMMANDS)
