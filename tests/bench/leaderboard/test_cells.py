"""Which rows make a cell, and which cells are best."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.leaderboard.made import ILLNESS, failed, illness, row, write
from tsattn.bench.leaderboard.cells import Board, Cell, Ranking, rank, read_board
from tsattn.bench.leaderboard.overview import ours
from tsattn.data import CATALOG
from tsattn.errors import DataError


def cells(scores: dict[str, dict[int, float]]) -> dict[str, Cell]:
    rows = [
        row(value_activation=name, seed=seed, test_mse=mse)
        for name, seeds in scores.items()
        for seed, mse in seeds.items()
    ]
    return Board(rows).row_of_cells("table2", "patchtst", "illness")


def test_cell_has_mean_and_deviation_of_its_seeds() -> None:
    found = Board(illness()).cell("table2", "patchtst", "illness", "tanh")
    values = list(ILLNESS["tanh"].values())
    assert found.seeds == (2021, 2022, 2023)
    assert found.mean() == pytest.approx(np.mean(values))
    assert found.deviation() == pytest.approx(np.std(values, ddof=1))
    assert found.mean("test_mse_as_published") == pytest.approx(0.8 * np.mean(values))


def test_one_seed_has_no_deviation_and_an_empty_cell_no_mean() -> None:
    board = Board([row()])
    assert board.cell("table2", "patchtst", "illness", "tanh").deviation() is None
    assert board.cell("table2", "patchtst", "illness", "relu").mean() is None


def test_order_of_the_rows_does_not_matter() -> None:
    forwards, backwards = Board(illness()), Board(illness()[::-1])
    assert forwards.rows == backwards.rows
    assert forwards.cells == backwards.cells


def test_failed_run_is_beside_the_finished_ones_and_is_no_score() -> None:
    board = Board([row(), failed(seed=2022)])
    cell = board.cell("table2", "patchtst", "illness", "tanh")
    assert [r.seed for r in cell.rows] == [2021]
    assert [r.seed for r in board.failed] == [2022]


def test_configurations_are_never_mixed() -> None:
    other = [row(seed=seed, config_hash="b" * 12, test_mse=9.0) for seed in (2021, 2022)]
    board = Board([*illness(), *other])
    assert board.cell("table2", "patchtst", "illness", "tanh").mean() == pytest.approx(3.91 / 3)
    assert board.left_out == other
    newer = [row(config_hash="b" * 12, test_mse=9.0, finished="2027-01-01T00:00:00Z")]
    assert Board([row(), *newer]).rows == newer


def test_float32_counts_before_a_newer_configuration_with_as_many_runs_in_bfloat16() -> None:
    exact = [row(seed=s, test_mse=1.5, finished="2026-01-01T00:00:00Z") for s in (1, 2)]
    mixed = {"precision": "bf16-mixed", "config_hash": "b" * 12, "finished": "2026-02-01T00:00:00Z"}
    fast = [row(seed=s, test_mse=1.4, **mixed) for s in (1, 2, 3)]
    cell = Board([*fast[:2], *exact]).cell("table2", "patchtst", "illness", "tanh")
    assert (cell.mean(), cell.precisions) == (1.5, "")
    more = Board([*exact, *fast]).cell("table2", "patchtst", "illness", "tanh")
    assert (more.mean(), more.precisions) == (pytest.approx(1.4), "bf16-mixed")
    assert ours(more, Ranking((), ())).text.endswith(", bf16-mixed")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_sha256": "c" * 64},
        {"test_windows": 144},
        {"horizon": 24},
        {"test_rows": "660:966"},
        {"context": 96},  # of the same rows: other targets
    ],
)
def test_other_data_or_windows_are_not_compared(changes: dict[str, Any]) -> None:
    strange = [row(value_activation="relu", seed=seed, **changes) for seed in (2021, 2022)]
    floor = row(model="last_value", value_activation="", seed=0, **changes)
    board = Board([*strange, floor, *illness()])
    assert not board.cell("table2", "patchtst", "illness", "relu").rows
    assert board.others("illness") == []
    assert board.left_out == [*strange, floor]


def test_longer_context_with_the_same_targets_is_compared() -> None:
    other = row(model="transformer", context=36, test_rows="737:966")
    board = Board([*illness(), other])
    assert board.left_out == []


def test_same_data_with_other_line_ends_is_the_same_data() -> None:
    lf, crlf = CATALOG["illness"].sha256.values()
    both = [row(seed=1, data_sha256=lf), row(seed=2, data_sha256=crlf)]
    assert Board(both).left_out == []


def test_other_protocols_fill_no_cell_of_table_2() -> None:
    board = Board([row(protocol="table2_b")])
    assert not board.cell("table2", "patchtst", "illness", "tanh").rows
    assert board.cell("table2_b", "patchtst", "illness", "tanh").rows
    assert board.networks("illness") == [
        ("table2", "patchtst"), ("table2", "transformer"), ("table2_b", "patchtst"),
    ]  # fmt: skip


def test_best_and_second_best_are_found_over_common_seeds() -> None:
    found = rank(cells({"identity": {1: 1.0, 2: 9.0}, "tanh": {1: 2.0}, "relu": {1: 3.0, 2: 0.0}}))
    assert found.seeds == (1,)
    assert found.order == ("identity", "tanh", "relu")
    marks = {name: found.mark(name) for name in ("identity", "tanh", "relu", "gelu")}
    assert marks == {"identity": "best", "tanh": "second", "relu": "", "gelu": ""}


def test_lucky_single_seed_does_not_win() -> None:
    """Seed 1 is easy for everybody; who has it alone must not beat means over harder seeds."""
    found = rank(cells({"identity": {1: 1.0, 2: 3.0, 3: 3.0}, "tanh": {1: 1.5}}))
    assert found.order == ("identity", "tanh")


def test_nothing_is_best_alone_or_without_a_common_seed() -> None:
    assert rank(cells({"tanh": {1: 1.0}})).order == ()
    assert rank(cells({"tanh": {1: 1.0}, "relu": {2: 2.0}})).order == ()
    of_two = rank(cells({"tanh": {1: 1.0}, "relu": {1: 2.0}}))
    assert (of_two.mark("tanh"), of_two.mark("relu")) == ("best", "")


def test_floors_come_first_beside_the_networks() -> None:
    more = {"value_activation": "", "seed": 0}
    models = ["something", "dlinear", "window_mean", "last_value", "huggingface_patchtst"]
    board = Board([row(model=model, **more) for model in models])
    assert [cell.model for cell in board.others("illness")] == [
        "last_value", "window_mean", "dlinear", "huggingface_patchtst", "something",
    ]  # fmt: skip


def test_corrupted_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path / "results", illness()) / "patchtst.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[3] = lines[3].replace("1.3", "abc", 1)
    file.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"patchtst\.csv, line 4: .*abc"):
        read_board(tmp_path / "results")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; .*--results"):
        read_board(tmp_path / "nowhere")
