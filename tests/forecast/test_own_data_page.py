"""docs/own-data.md is run from top to bottom: its commands, cut short, and its Python."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.pages import LEFT_BY_OTHERS, run_page


@pytest.fixture(params=["shared", "made"])
def home(
    request: pytest.FixtureRequest, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the exchange rates, or with a made file of their form where they are absent."""
    file = root.parent / "shared" / "datasets" / "exchange_rate.csv"
    if request.param == "made":
        made_rates(tmp_path / "exchange_rate.csv")
    elif file.is_file():
        shutil.copy(file, tmp_path)
    else:
        pytest.skip("there is no exchange_rate.csv")
    for name in LEFT_BY_OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made_rates(file: Path, rows: int = 1500) -> None:
    """Write random walks with the header and the dates of the exchange rates."""
    steps = np.random.default_rng(0).normal(scale=0.005, size=(rows, 8))
    rates = np.exp(steps.cumsum(axis=0)) * np.geomspace(0.007, 1.6, 8)
    days = pd.date_range("1990-01-01", periods=rows)
    frame = pd.DataFrame(rates.round(6), columns=[*map(str, range(7)), "OT"])
    frame.insert(0, "date", [f"{day.year}/{day.month}/{day.day} 0:00" for day in days])
    frame.to_csv(file, index=False)


@pytest.mark.unchecked
def test_everything_on_the_page_does_what_it_says(home: Path, root: Path) -> None:
    pytest.importorskip("onnxruntime")
    page = (root / "docs" / "own-data.md").read_text(encoding="utf-8")
    typed = run_page(root / "docs" / "own-data.md")
    assert set(typed) == {"data", "fit", "forecast", "backtest", "export"}
    made = pd.read_csv("forecast.csv")
    assert len(made) == 30
    assert (made["OT-lo-95"] <= made["OT-lo-80"]).all()
    assert {"coverage-80", "width-95"} <= set(pd.read_csv("scores.csv"))
    assert Path("forecast.csv").read_bytes() == Path("again.csv").read_bytes()
    assert len(pd.read_csv("scores.csv")) == 2 * 20 * 8 * 30
    for picture in ("forecast.png", "error.png"):
        assert Path(picture).stat().st_size > 10_000
    card = Path("exchange-model/README.md").read_text(encoding="utf-8")
    assert "cut short by limits" in card
    assert all(f"`{name.name}`" in page for name in Path("exchange-model").iterdir())
