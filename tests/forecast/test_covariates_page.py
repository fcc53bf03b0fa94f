"""docs/covariates.md is run from top to bottom: its commands, cut short, and its Python."""

from pathlib import Path

import pandas as pd
import pytest

from tests.forecast.pages import LEFT_BY_OTHERS, run_page


@pytest.mark.unchecked
def test_everything_on_the_page_does_what_it_says(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in LEFT_BY_OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    typed = run_page(root / "docs" / "covariates.md")
    assert typed == ["fit", "forecast", "backtest"]
    tomorrow = pd.read_csv("tomorrow.csv")
    assert tomorrow.columns.tolist() == ["date", "sold"]
    assert len(tomorrow) == 24
