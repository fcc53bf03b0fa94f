"""The committed leaderboard is what the committed results say."""

import csv
from pathlib import Path

import pytest

from tsattn.bench.leaderboard.cells import read_board
from tsattn.bench.leaderboard.forecasts import groups
from tsattn.cli import main


def test_pictures_are_of_the_checkpoints_that_the_results_keep(root: Path) -> None:
    results = root / "results"
    drawn = {
        (row.model, row.dataset, str(row.seed), row.value_activation)
        for group in groups(read_board(results))
        for row in group
    }
    with (results / "pictures" / "forecasts.csv").open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["value_activation"]]
    names = ("model", "dataset", "seed", "value_activation")
    assert {tuple(line[name] for name in names) for line in lines} == drawn, (
        "run `tsattn leaderboard forecasts`"
    )


def test_committed_leaderboard_is_a_fresh_rendering_of_the_committed_results(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["leaderboard", "--check"]) == 0, capsys.readouterr().out
