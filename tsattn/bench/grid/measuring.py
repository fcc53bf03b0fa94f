"""Measure what nothing is known of: the first steps of a cell, in a process of its own."""

from collections.abc import Callable, Iterable, Mapping

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.costs import Costs
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.measured import measured_file
from tsattn.bench.grid.processes import kill, start
from tsattn.bench.grid.remember import Remember
from tsattn.bench.grid.worker import begin
from tsattn.training.amounts import duration
from tsattn.training.command import run


def measure(cell: Cell, folder: CellFolder, threads: int, environment: Mapping[str, str]) -> None:
    """Measure the first steps of a cell in this process, and write nothing but them."""
    begin(folder, threads, environment)
    run([*cell.words, "--trainer.logger", "false", "--estimate"], callbacks=[Remember(cell)])


def measure_all(cells: Iterable[Cell], costs: Costs, say: Callable[[str], None]) -> None:
    """Measure what nothing is known of, one configuration after the other, each in a process.

    Args:
        cells: cells to run; of one configuration the first is measured.
        costs: what is known, and which threads.
        say: told about each configuration.
    """
    tried: set[str] = set()
    for cell in cells:
        if cell.key.config_hash in tried or costs.of(cell) is not None:
            continue
        tried.add(cell.key.config_hash)
        folder = CellFolder(measured_file(cell, costs.threads).with_suffix(""))
        folder.path.mkdir(parents=True, exist_ok=True)
        process = start(measure, cell, folder, threads=costs.threads)
        try:
            process.join()
        finally:
            kill(process)
        costs.forget(cell)
        found = costs.of(cell)
        said = f"cannot be measured, see {folder.log}" if found is None else duration(found.seconds)
        say(f"{cell.name}: {said}")
