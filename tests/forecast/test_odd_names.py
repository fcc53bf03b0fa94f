"""Columns called as people call them: with units in brackets, currencies and underscores."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.forecast.conftest import Fit
from tests.forecast.made import wide_frame
from tests.forecast.test_intervals import DLINEAR
from tsattn.cli import main
from tsattn.training.folder import RunFolder

NAMES = ["load [kW]", "load [hPa]", "flow [/min]", "price_$_per_$", "_raw", "a:key:b"]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Hourly channels of such names."""
    made = wide_frame(160, "abcdef")
    made.columns = ["date", *NAMES]
    return made


@pytest.fixture(scope="module")
def run(fitted: Fit, frame: pd.DataFrame) -> RunFolder:
    """A run on them."""
    return RunFolder(fitted(frame, *DLINEAR))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text of the pictures that were saved."""
    texts: list[str] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: Any, **kwargs: Any) -> None:
        save(figure, *args, **kwargs)
        texts.extend(one.get_text() for one in figure.findobj(Text) if isinstance(one, Text))

    monkeypatch.setattr(Figure, "savefig", savefig)
    return texts


def test_a_run_draws_its_forecast(run: RunFolder) -> None:
    assert run.forecast_picture.read_bytes().startswith(PNG)
    assert run.result.is_file()


def test_data_describe_names_every_column(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.to_csv(tmp_path / "sales [eu].csv", index=False)
    assert main(["data", "describe", str(tmp_path / "sales [eu].csv")]) == 0
    said = capsys.readouterr().out
    for name in ["sales [eu]", *NAMES]:
        assert name in said


def test_backtest_names_every_channel_on_the_terminal_and_in_the_picture(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[str]
) -> None:
    words = ["--ckpt", str(run.path), "--data", str(run.path.parent / "own.csv")]
    plot = tmp_path / "errors.png"
    assert main(["backtest", *words, "--windows", "2", "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert plot.read_bytes().startswith(PNG)
    for name in NAMES:
        assert name in said
        assert name in drawn


def test_forecast_writes_file_and_picture(run: RunFolder, tmp_path: Path, drawn: list[str]) -> None:
    words = ["--ckpt", str(run.path), "--data", str(run.path.parent / "own.csv")]
    out, plot = tmp_path / "ahead.csv", tmp_path / "ahead.svg"
    assert main(["forecast", *words, "--out", str(out), "--plot", str(plot)]) == 0
    assert pd.read_csv(out).columns.tolist() == ["date", *NAMES]
    assert set(NAMES) <= set(drawn)


def test_it_is_said_how_many_of_many_channels_are_shown(
    fitted: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[str]
) -> None:
    many = wide_frame(160, "abcdefghijklmnopqrstuvwxy")
    run = RunFolder(
        fitted(many.set_axis(["date", *(f"c{n}" for n in range(25))], axis=1), *DLINEAR)
    )
    assert any("the last 8 of 25 channels" in text for text in drawn)
    words = ["--ckpt", str(run.path), "--data", str(run.path.parent / "own.csv")]
    capsys.readouterr()
    assert main(["backtest", *words]) == 0
    said = capsys.readouterr().out
    assert "the last 20 of 25 channels; --out FILE.csv keeps all" in said
    scores, plot = tmp_path / "scores.csv", tmp_path / "errors.png"
    assert main(["backtest", *words, "--out", str(scores), "--plot", str(plot)]) == 0
    assert f"the last 20 of 25 channels; all are in {scores}" in capsys.readouterr().out
    assert pd.read_csv(scores)["channel"].nunique() == 25
    assert "the last 8 of 25" in drawn


def test_counted_steps_are_numbers_where_a_run_shows_them(
    fitted: Fit, capsys: pytest.CaptureFixture[str], drawn: list[str]
) -> None:
    fitted(wide_frame(160).assign(date=np.arange(160) * 5), *DLINEAR)
    assert "0 to 795" in " ".join(capsys.readouterr().out.split())
    assert not [text for text in drawn if "2000" in text]


def test_a_run_shows_the_clock_on_the_wall(fitted: Fit, drawn: list[str]) -> None:
    days = pd.date_range("2020-01-01", periods=160, freq="D", tz="Asia/Tokyo")
    fitted(wide_frame(160).assign(date=days), *DLINEAR, "--data.time_zone", "Asia/Tokyo")
    assert not [text for text in drawn if "15:00" in text]
