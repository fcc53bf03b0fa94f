"""`tsattn bench run` and `plan`: fill the table, go on where it was left, and say what is left."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import Namespace
from rich.console import Console

from tsattn.bench.grid.cells import Cell, read_cells, select
from tsattn.bench.grid.costs import Costs
from tsattn.bench.grid.engine import Engine
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.plan import show_cells, show_groups, summary
from tsattn.bench.grid.progress import Progress
from tsattn.bench.grid.table import Results, State, tally
from tsattn.bench.rows import Key
from tsattn.console import open_console
from tsattn.data.amounts import counted
from tsattn.errors import ConfigError
from tsattn.interrupts import interruptible
from tsattn.options import CommandParser
from tsattn.training.hardware import usable_cores

_INTERRUPTED = 130


def grid_command(words: Sequence[str]) -> int:
    """Run ``tsattn bench run`` or ``plan`` as typed after ``tsattn bench``.

    Returns:
        The exit status: 1 where a cell failed, 130 after Ctrl-C or SIGTERM.

    Raises:
        ConfigError: a grid, a selection or a number that cannot work.
        DataError: results that are damaged or of a newer tsattn; nothing was changed.
    """
    given = _parser().parse_args(list(words))
    options: Namespace = given[given.subcommand]
    for name in ("workers", "threads"):
        if options[name] < 1:
            raise ConfigError(f"--{name} must be at least 1, got {options[name]}")
    cells = select(read_cells(options.grid), options.only, options.seeds)
    results = Results(options.results)
    costs = Costs(results.rows(cell.key.model for cell in cells).values(), options.threads)
    console = open_console(200)  # a file has room for every column
    try:
        with interruptible():
            return _SUBCOMMANDS[given.subcommand].run(cells, results, costs, options, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on, each cell from its last epoch")
        return _INTERRUPTED


def _plan(
    cells: list[Cell], results: Results, costs: Costs, options: Namespace, console: Console
) -> int:
    states = results.states(cells)
    if options.measure:
        from tsattn.bench.grid.measuring import measure_all  # brings in all of training

        waiting = [cell for cell in cells if states[cell.key] == State.WAITING]
        measure_all(waiting, costs, lambda line: console.print(line))
    show = show_cells if options.cells else show_groups
    show(cells, states, costs, console)
    for line in failures(cells, states):
        console.print(line, style="yellow")
    console.print(summary(cells, states, costs, options.workers))
    return 0


def _run(
    cells: list[Cell], results: Results, costs: Costs, options: Namespace, console: Console
) -> int:
    elsewhere = bool(options.address)
    states = results.states(cells, elsewhere=elsewhere)
    todo = [State.WAITING, *([State.FAILED] if options.retry_failed else [])]
    chosen = [cell for cell in cells if states[cell.key] in todo]
    console.print(f"{counted(len(cells), 'cell')}: {tally(states.values())}")
    lines = obstacles(cells, states) + ([] if options.retry_failed else failures(cells, states))
    for line in lines:
        console.print(line, style="yellow")
    states |= dict.fromkeys((cell.key for cell in chosen), State.WAITING)
    console.print(summary(cells, states, costs, options.workers))
    if not chosen:
        return 0
    results.require_writable()
    from tsattn.bench.grid.checking import require_parsable  # brings in all of training

    require_parsable(chosen)
    engine = _engine(options)
    progress = Progress(cells, states, costs, options.workers, console)

    def wanted(cell: Cell) -> bool:
        state = results.states([cell], elsewhere=elsewhere)[cell.key]
        return state in todo and not CellFolder.of(cell.key).is_busy

    with progress, closing(engine.run(chosen, wanted, progress.tick)) as finished:
        for over in finished:
            row = over.row and results.add(over.row, over.weights)
            there = row or results.rows([over.cell.key.model]).get(over.cell.key)
            progress.over(over.cell, there, over.obstacle)
    console.print(f"{counted(len(cells), 'cell')}: {tally(states.values())}")
    return 1 if any(states[cell.key] == State.FAILED for cell in chosen) else 0


def _engine(options: Namespace) -> Engine:
    """Return what runs the cells; it brings in all of training."""
    if options.engine == "ray":
        from tsattn.bench.grid.ray_engine import RayTasks

        return RayTasks(
            options.workers, options.threads, gpus=options.gpus, address=options.address
        )
    if options.address or options.gpus:
        raise ConfigError("--address and --gpus belong to --engine ray")
    from tsattn.bench.grid.processes import Processes

    return Processes(options.workers, options.threads)


def obstacles(cells: Sequence[Cell], states: Mapping[Key, State]) -> list[str]:
    """Say once for each reason which cells cannot run here."""
    reasons: dict[str, int] = {}
    for cell in cells:
        if states[cell.key] == State.CANNOT:
            reason = cell.obstacle() or ""
            reasons[reason] = reasons.get(reason, 0) + 1
    return [
        f"{counted(count, 'cell')} cannot run here: {reason}" for reason, count in reasons.items()
    ]


def failures(cells: Sequence[Cell], states: Mapping[Key, State]) -> list[str]:
    """Say how many cells failed earlier, in a line or none."""
    failed = sum(states[cell.key] == State.FAILED for cell in cells)
    if not failed:
        return []
    again = "it" if failed == 1 else "them"
    return [f"{counted(failed, 'cell')} failed earlier; --retry-failed runs {again} again"]


def _parser() -> CommandParser:
    parser = CommandParser(prog="tsattn bench", description="A table of cells, by many runs.")
    commands = parser.add_subcommands()
    for name, subcommand in _SUBCOMMANDS.items():
        command = CommandParser()
        _common_options(command.add_argument)
        subcommand.options(command.add_argument)
        commands.add_subcommand(name, command, help=subcommand.about)
    return parser


def _common_options(add: Callable[..., Any]) -> None:
    default = ["configs/bench/table2.yaml"]
    add("--grid", nargs="+", type=str, default=default, help="files of cells, of configs/bench")
    add(
        "--only",
        type=str | None,
        help="name=value,..., of protocol, model, dataset, activation, seed",
    )
    add("--seeds", type=int | None, help="the first so many seeds of each model alone")
    add("--results", type=Path, default=Path("results"), help="folder of the rows")
    add(
        "--workers",
        type=int,
        default=usable_cores(),
        help="cells at a time; two of one thread "
        "are 1.44 times as fast as one of two, measured on Illness",
    )
    add("--threads", type=int, default=1, help="threads of each cell")


def _run_options(add: Callable[..., Any]) -> None:
    add("--engine", type=Literal["local", "ray"], default="local", help="who runs the cells")
    add("--address", type=str | None, help="of a Ray cluster; by default one is begun here")
    add("--gpus", type=float, default=0.0, help="of each cell, with --engine ray")
    add("--retry-failed", action="store_true", help="run cells again that failed earlier")


def _plan_options(add: Callable[..., Any]) -> None:
    add("--cells", action="store_true", help="a line for each cell")
    add(
        "--measure",
        action="store_true",
        help="measure what nothing is known of; on a quiet machine",
    )


class _Subcommand(NamedTuple):
    run: Callable[[list[Cell], Results, Costs, Namespace, Console], int]
    options: Callable[[Callable[..., Any]], None]
    about: str


_SUBCOMMANDS = {
    "run": _Subcommand(_run, _run_options, "fill the table; what is done is skipped"),
    "plan": _Subcommand(_plan, _plan_options, "what is done, and what the rest will cost"),
}
GRID_COMMANDS = tuple(_SUBCOMMANDS)
