"""docs/forecasting.md is run from top to bottom: its commands, cut short, and its Python."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.forecast.made import wide_frame
from tsattn.cli import main

SHORT = [
    "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.max_epochs=1",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the exchange rates, and rates that nobody trained on."""
    file = shared / "datasets" / "exchange_rate.csv"
    if not file.is_file():
        pytest.skip("there is no exchange_rate.csv")
    shutil.copy(file, tmp_path)
    wide_frame(200, names="xy", freq="D").to_csv(tmp_path / "new_rates.csv", index=False)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.unchecked
def test_everything_on_the_page_does_what_it_says(
    home: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (root / "docs" / "forecasting.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    typed: set[str] = set()
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "forecasting.md", "exec"), scope)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)[1:]
            typed.add(words[0])
            status = main(words + (SHORT if words[0] == "fit" else []))
            assert status == 0, (words, capsys.readouterr().err)
    assert typed == {"data", "fit", "forecast", "backtest", "refit"}
    assert len(pd.read_csv("forecast.csv")) == 30
    assert pd.read_csv("new.csv").columns.tolist() == ["date", "x", "y"]
    assert len(pd.read_csv("scores.csv")) == 2 * 50 * 8 * 30
    assert "OT-lo-95" in pd.read_csv("bands.csv").columns
    assert "coverage-80" in pd.read_csv("scores.csv").columns
    for picture in ("forecast.png", "error.png", "bands.png"):
        assert Path(picture).stat().st_size > 10_000
