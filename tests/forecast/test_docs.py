"""docs/forecasting.md is run from top to bottom: its commands, cut short, and its Python."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.forecast.made import wide_frame
from tests.forecast.pages import LEFT_BY_OTHERS, run_page


@pytest.fixture
def home(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the exchange rates, and rates that nobody trained on."""
    file = shared / "datasets" / "exchange_rate.csv"
    if not file.is_file():
        pytest.skip("there is no exchange_rate.csv")
    shutil.copy(file, tmp_path)
    wide_frame(200, names="xy", freq="D").to_csv(tmp_path / "new_rates.csv", index=False)
    for name in LEFT_BY_OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.unchecked
def test_everything_on_the_page_does_what_it_says(home: Path, root: Path) -> None:
    typed = run_page(root / "docs" / "forecasting.md")
    assert set(typed) == {"data", "fit", "forecast", "backtest", "refit"}
    assert len(pd.read_csv("forecast.csv")) == 30
    assert pd.read_csv("new.csv").columns.tolist() == ["date", "x", "y"]
    assert len(pd.read_csv("scores.csv")) == 2 * 50 * 8 * 30
    assert "OT-lo-95" in pd.read_csv("bands.csv").columns
    assert "coverage-80" in pd.read_csv("scores.csv").columns
    for picture in ("forecast.png", "error.png", "bands.png"):
        assert Path(picture).stat().st_size > 10_000
