"""docs/covariates.md is run from top to bottom: its commands, cut short, and its Python."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.forecast.test_docs import SHORT
from tsattn.cli import main


@pytest.mark.unchecked
def test_everything_on_the_page_does_what_it_says(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    page = (root / "docs" / "covariates.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    typed: list[str] = []
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "covariates.md", "exec"), scope)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)[1:]
            typed.append(words[0])
            status = main(words + (SHORT if words[0] == "fit" else []))
            assert status == 0, (words, capsys.readouterr().err)
    assert typed == ["fit", "forecast", "backtest"]
    tomorrow = pd.read_csv("tomorrow.csv")
    assert tomorrow.columns.tolist() == ["date", "sold"]
    assert len(tomorrow) == 24
