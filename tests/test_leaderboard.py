"""The committed leaderboard is what the committed results say."""

from pathlib import Path

import pytest

from tsattn.cli import main


def test_committed_leaderboard_is_a_fresh_rendering_of_the_committed_results(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["leaderboard", "--check"]) == 0, capsys.readouterr().out
