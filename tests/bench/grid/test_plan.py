"""`tsattn bench plan`: what is done, what the rest costs, and how sure that is."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.bench.grid.tiny import write_grid
from tests.bench.test_rows import failed, row
from tsattn.bench.grid.cells import Cell, read_cells
from tsattn.bench.grid.costs import Cost, Costs
from tsattn.bench.grid.measured import Measured, measured_file, write_measured
from tsattn.bench.grid.plan import total
from tsattn.bench.rows import Row, append_row
from tsattn.cli import main
from tsattn.training.hardware import processor

HERE = processor(torch.device("cpu"))
STEPS = Measured(HERE, 0.01, 0.02, epoch_seconds=3.0, peak_mib=700.0)


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return read_cells([write_grid(tmp_path)])


def row_of(cell: Cell, **changes: object) -> Row:
    given: dict = cell.key._asdict() | {"device": HERE, "threads": 1, "peak_mib": 650.0} | changes
    return row(**given)


def test_cost_is_that_of_cells_that_ran_else_of_measured_steps_else_unknown(
    cells: list[Cell],
) -> None:
    cell = cells[0]
    assert Costs([], 1).of(cell) is None
    write_measured(cell, 1, STEPS)
    assert Costs([], 1).of(cells[3]) == Cost(4 * 3.0, 700.0, at_most=True)  # four epochs at most
    assert Costs([], 2).of(cell) is None  # other threads
    ran = [row_of(cell, seed=seed, wall_seconds=seconds) for seed, seconds in ((1, 5.0), (2, 7.0))]
    assert Costs(ran, 1).of(cell) == Cost(6.0, 650.0, at_most=False)
    elsewhere = [replace(one, device="cpu: another") for one in ran]  # pyright: ignore
    assert Costs(elsewhere, 1).of(cell) == Cost(12.0, 700.0, at_most=True)
    assert Costs([replace(one, threads=2) for one in ran], 1).of(cell) == Cost(  # pyright: ignore
        12.0, 700.0, at_most=True
    )


def test_steps_of_another_machine_or_damaged_ones_do_not_count(cells: list[Cell]) -> None:
    write_measured(cells[0], 1, replace(STEPS, device="cpu: another"))
    assert Costs([], 1).of(cells[0]) is None
    measured_file(cells[0], 1).write_text("{")
    assert Costs([], 1).of(cells[0]) is None


def test_no_run_fails_where_its_steps_cannot_be_kept(
    cells: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = measured_file(cells[0], 1).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file")
    write_measured(cells[0], 1, STEPS)
    assert "steps are not kept for later plans" in capsys.readouterr().out
    assert Costs([], 1).of(cells[0]) is None


def test_total_says_how_sure_it_is() -> None:
    sure, upper = Cost(7200.0, None, at_most=False), Cost(3600.0, None, at_most=True)
    assert total([sure, sure]).text() == "4 h"
    assert total([upper, upper, sure]).text(workers=2) == "at most 2 h"
    assert total([sure, upper]).text(workers=2) == "at most 2 h"  # the longest is not shared
    assert total([sure, None, None]).text() == "2 h, and 2 cells not measured"
    assert total([None]).text() == "1 cell not measured"
    assert total([]).text() == "0 ms"


def test_plan_of_480_cells_with_its_costs_takes_less_than_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    every = read_cells(["configs/bench/table2.yaml"])
    for cell in every[:96]:
        write_measured(cell, 1, STEPS)
    for cell in every[:150]:
        if cell.obstacle() is None:
            one = row_of(cell, wall_seconds=9.0, finished="2026-01-02T03:04:05Z")
            append_row(Path("results") / f"{cell.key.model}.csv", one)
    begin = time.process_time()  # a loaded machine is no failure
    assert main(["bench", "plan", "--workers", "2", "--threads", "1"]) == 0
    assert time.process_time() - begin < 5
    shown = capsys.readouterr().out
    assert "480 cells" in shown
    assert "traffic.csv is not here: tsattn data fetch traffic" in shown
    assert "with --workers 2 --threads 1" in shown
    assert not (tmp_path / "results" / "dlinear.csv").exists()


def test_plan_names_each_cell_and_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = write_grid(tmp_path)
    one, two, *_ = read_cells([grid])
    append_row("results/patchtst.csv", row_of(one))
    append_row("results/patchtst.csv", failed(**two.key._asdict()))
    write_measured(one, 1, STEPS)
    assert main(["bench", "plan", "--grid", str(grid), "--cells", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    lines = {
        words[4:6]: words for line in shown.splitlines() if len(words := tuple(line.split("│"))) > 6
    }
    states = [(key[0].strip(), key[1].strip(), words[6].strip()) for key, words in lines.items()]
    assert states == [
        ("identity", "7", "done"),
        ("tanh", "7", "failed"),
        ("identity", "8", "to run"),
        ("tanh", "8", "to run"),
    ]
    assert "1 cell failed earlier; --retry-failed" in shown
    assert "2 cells to run" in shown


def test_plan_refuses_results_of_a_newer_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    (results / "patchtst.csv").write_text("schema,colour\n2,red\n")
    for command in ("plan", "run"):
        assert main(["bench", command, "--grid", str(write_grid(tmp_path))]) == 1
        assert "patchtst.csv, line 2: written by a newer tsattn" in capsys.readouterr().err
    assert (results / "patchtst.csv").read_text() == "schema,colour\n2,red\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--threads", "-1"], "--threads must be at least 1, got -1"),
        (["--only", "dataset=illnss"], "no dataset 'illnss'"),
        (["--only", "activation=tanhh"], "did you mean 'tanh'"),
    ],
)
def test_wrong_words_are_answered_before_anything_runs(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("plan", "run"):
        assert main(["bench", command, "--grid", str(write_grid(tmp_path)), *words]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_ray_options_without_ray_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", "run", "--grid", str(write_grid(tmp_path)), "--gpus", "1"]
    assert main(words) == 1
    assert "--address and --gpus belong to --engine ray" in capsys.readouterr().err
