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
    leaderboard = (ROOT / "leaderboard.md").read_text(encoding="utf-8")
    section = README.partition("## Measured")[2].partition("## Limits")[0]
    scores = re.findall(r"\d\.\d{4}(?: ± \d\.\d{4})?", section)
    assert len(scores) == 15
    assert [score for score in scores if score not in leaderboard] == []
