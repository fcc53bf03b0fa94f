"""What a person sees while a grid runs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.grid.test_plan import STEPS, row_of
from tests.bench.grid.tiny import write_grid
from tests.bench.test_rows import failed
from tsattn.bench.grid import progress
from tsattn.bench.grid.cells import Cell, read_cells
from tsattn.bench.grid.costs import Costs
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.measured import write_measured
from tsattn.bench.grid.progress import Progress, epochs_done
from tsattn.bench.grid.table import State


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return read_cells([write_grid(tmp_path)])


def shown(cells: list[Cell], *, terminal: bool) -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    states = dict.fromkeys((cell.key for cell in cells), State.WAITING)
    return Progress(cells, states, Costs([], 1), 2, console), text


def with_epochs(cell: Cell, count: int) -> None:
    folder = CellFolder.of(cell.key).run
    folder.create()
    folder.metrics.write_text("epoch\n" + "".join(f"{n}\n" for n in range(count)))


def test_live_table_shows_what_runs_how_far_it_is_and_what_is_left(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.0)
    write_measured(cells[0], 1, STEPS)  # 12 s a cell
    live, text = shown(cells, terminal=True)
    with_epochs(cells[0], 3)
    with live:
        live.tick([cells[0].key, cells[1].key])
    drawn = text.getvalue()
    assert "patchtst illness identity 7" in drawn
    assert "2 to run, 2 running; at most 20 s to go" in drawn  # (1/4 + 3) * 12 s / 2 workers
    assert epochs_done(cells[0].key) == 3
    assert epochs_done(cells[3].key) == 0


def test_each_end_is_a_line_and_what_ran_replaces_the_estimate(cells: list[Cell]) -> None:
    live, text = shown(cells, terminal=False)
    with live:
        live.tick([cells[0].key])
        live.over(cells[0], row_of(cells[0], test_mse=1.25, wall_seconds=30.0))
        live.over(cells[1], failed(**cells[1].key._asdict()))
        live.over(cells[2], None)
    assert text.getvalue().splitlines() == [
        "[1/4] patchtst illness identity 7: test MSE 1.2500, 30 s",
        "[1/4] patchtst illness tanh 7: failed: the loss became NaN",
        "[1/4] patchtst illness identity 8: another runner is at it",
    ]
    assert live.states[cells[2].key] == State.ELSEWHERE
    live.over(cells[2], None, "there is no file own.csv")
    assert text.getvalue().endswith("identity 8: cannot run there: there is no file own.csv\n")
    assert live.states[cells[2].key] == State.CANNOT
    assert live.remaining() == "30 s"  # one cell is left, which two workers do not share
