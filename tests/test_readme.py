"""The README is run: its Python example whole, its commands for one batch each."""

import re
import shlex
from pathlib import Path

import pytest

from tsattn.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a fresh clone to somebody who types commands in it."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    rows = (ROOT / "datasets" / "ETTh1.csv").read_text(encoding="utf-8").splitlines()[:600]
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.unchecked
def test_python_example_runs_and_has_about_ten_lines(checkout: Path) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    scope: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert scope["trainer"].callback_metrics["test/mse"] < 4.2  # pyright: ignore


def test_every_command_of_the_readme_does_what_it_says(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [words[1:] for words in commands() if words[0] == "tsattn"]
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    short += ["--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    more = {"fit": short, "test": short, "tune": [*short, "--trials=1", "--repeat-seeds=0"]}
    wanted = {"fit", "test", "forecast", "backtest", "export", "data", "doctor", "tune"}
    assert {words[0] for words in typed} >= wanted
    for words in typed:
        if words[:2] == ["data", "fetch"]:
            continue  # needs the net; its tests run against a server of their own
        status = main(words + more.get(words[0], []))
        assert status == 0, (words, capsys.readouterr().err)


def test_every_make_target_and_file_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / link).exists(), link


def test_scores_of_the_readme_are_those_of_the_leaderboard() -> None:
    section = README.partition("## Measured")[2].partition("**")[0]
    rows = [_cells(line) for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 8
    for dataset, model, *scores in rows:
        assert scores == _of_the_leaderboard(dataset, model), (dataset, model)


def _of_the_leaderboard(dataset: str, model: str) -> list[str]:
    """Return seeds, MSE, MSE as published and MAE of the first row of a model on a dataset."""
    text = (ROOT / "leaderboard.md").read_text(encoding="utf-8")
    of_dataset = text.partition(f"\n## {dataset}\n")[2].partition("\n## ")[0]
    name = "Linear (identity)" if model == "PatchTST (identity)" else model
    lines = [line for line in of_dataset.splitlines() if line.startswith(f"| {name} |")]
    row = _cells(lines[0])
    if name == model:  # a peer
        return [row[3], row[2], row[7], row[4]]
    return [row[2], row[1], row[5], row[7]]


def _cells(line: str) -> list[str]:
    return [re.sub(r"\*\*|</?ins>", "", cell).strip() for cell in line.split("|")[1:-1]]
