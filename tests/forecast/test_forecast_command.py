"""``tsattn forecast`` and ``tsattn backtest`` as a person types them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.made import wide_frame
from tests.training.tiny import HORIZON, Finished, contents
from tsattn.cli import main
from tsattn.forecast import Forecaster

PNG = b"\x89PNG"


@pytest.fixture
def new(tmp_path: Path, illness_frame: pd.DataFrame) -> Path:
    """The end of Illness as somebody's new file, its channels in another order."""
    frame = illness_frame.iloc[-60:]
    frame[["date", "OT", *frame.columns[1:-1]]].to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "new.csv"


def words(command: str, illness: Finished, new: Path, *more: object) -> list[str]:
    return [command, "--ckpt", str(illness.folder.path), "--data", str(new), *map(str, more)]


def test_forecast_is_written_with_its_picture(
    illness: Finished, new: Path, forecaster: Forecaster, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = new.parent / "deep" / "forecast.csv", new.parent / "forecast.png"
    assert main(words("forecast", illness, new, "--out", out, "--plot", plot)) == 0
    made = pd.read_csv(out, parse_dates=["date"])
    expected = forecaster.predict(new)
    assert made.columns.tolist() == pd.read_csv(new).columns.tolist()
    assert made["date"].tolist() == expected["date"].tolist()
    np.testing.assert_allclose(made.iloc[:, 1:], expected.iloc[:, 1:], rtol=1e-12)
    assert plot.read_bytes().startswith(PNG)
    assert f"{HORIZON} rows ahead of 7 channels, 2020-07-07" in capsys.readouterr().out
    left = sorted(path.name for path in new.parent.iterdir())
    assert left == ["deep", "forecast.png", "new.csv"]


def test_backtest_writes_tidy_scores_and_a_picture(
    illness: Finished, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = new.parent / "scores.csv", new.parent / "error.png"
    typed = words(
        "backtest", illness, new, "--windows", 3, "--step", 2, "--out", out, "--plot", plot
    )
    assert main(typed) == 0
    scores = pd.read_csv(out)
    assert len(scores) == 2 * 3 * 7 * HORIZON
    assert scores.columns.tolist()[:5] == ["unit", "window", "cutoff", "channel", "step"]
    assert plot.read_bytes().startswith(PNG)
    printed = capsys.readouterr().out
    assert "MASE" in printed
    assert "all" in printed


@pytest.mark.parametrize("command", ["forecast", "backtest"])
@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_picture_is_what_its_ending_says(
    illness: Finished, new: Path, command: str, ending: str, start: bytes
) -> None:
    out, plot = new.parent / "out.CSV", new.parent / f"plot.{ending}"
    assert main(words(command, illness, new, "--out", out, "--plot", plot)) == 0
    assert plot.read_bytes().startswith(start)
    assert len(pd.read_csv(out)) >= HORIZON
    assert len(list(new.parent.iterdir())) == 3


def test_backtest_may_only_print(
    illness: Finished, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("backtest", illness, new)) == 0
    assert "SMAPE" in capsys.readouterr().out
    assert [path.name for path in new.parent.iterdir()] == ["new.csv"]


@pytest.mark.parametrize("option", ["--out", "--plot"])
@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_existing_file_is_replaced_only_when_asked(
    illness: Finished, new: Path, command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"--out": new.parent / "out.csv", "--plot": new.parent / "plot.png"}
    files[option].write_text("precious")
    typed = words(command, illness, new, *(word for pair in files.items() for word in pair))
    assert main(typed) == 1
    assert "exists; choose another name, or replace it with --overwrite" in capsys.readouterr().err
    assert files[option].read_text() == "precious"
    assert sum(path.exists() for path in files.values()) == 1
    assert main([*typed, "--overwrite"]) == 0
    assert files[option].read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{new}", "--overwrite"], "is the data"),
        (["--out", "{folder}"], "is a folder; name a file"),
        (["--out", "{folder}/x.csv", "--plot", "{folder}/x.csv"], "give two names"),
        (["--out", "{folder}/x.xlsx"], "x.xlsx: expected a name that ends in .csv"),
        (["--out", "{folder}/x"], "x: expected a name that ends in .csv"),
        (["--out", "{folder}/x.csv", "--plot", "{folder}/x.bmp"], "x.bmp: expected a name that"),
        (["--out", "{folder}/x.csv", "--levels", "80", "100"], "level 100: expected percent"),
        (["--out", "{folder}/x.csv", "--layout", "tall"], "expected wide or long"),
        (["--out", "{folder}/x.csv", "--data", "{folder}/none.csv"], "none.csv does not exist"),
        (["--out", "{folder}/x.csv", "--time_column", "when"], "no time column 'when'"),
        (
            ["--out", "{folder}/../x.csv", "--ckpt", "{folder}"],
            "folder without checkpoints/best.ckpt",
        ),
    ],
)
def test_misuse_is_answered_and_writes_nothing(
    illness: Finished,
    new: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = new.read_bytes()
    filled = [word.format(new=new, folder=new.parent) for word in options]
    assert main(words("forecast", illness, new, *filled)) == 1
    assert message in capsys.readouterr().err
    assert new.read_bytes() == before
    assert [path.name for path in new.parent.iterdir()] == ["new.csv"]


@pytest.mark.parametrize("command", ["forecast", "backtest"])
@pytest.mark.parametrize("fails", ["frame", "out", "picture"])
def test_failure_leaves_both_files_as_they_were(
    illness: Finished, new: Path, command: str, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plot = new.parent / "out.csv", new.parent / "plot.png"
    for file in (out, plot):
        file.write_text("precious")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if fails == "frame":
        method = "outlook.Outlook.frame" if command == "forecast" else "backtest.Backtest.scores"
        monkeypatch.setattr(f"tsattn.forecast.{method}", fail)
    elif fails == "picture":
        for name in ("draw_outlook", "draw_errors"):
            monkeypatch.setattr(f"tsattn.forecast.pictures.{name}", fail)
    else:
        out = new / "out.csv"  # below a file
    typed = words(command, illness, new, "--out", out, "--plot", plot, "--overwrite")
    assert main(typed) == 1
    assert sorted(path.name for path in new.parent.iterdir()) == ["new.csv", "out.csv", "plot.png"]
    assert (new.parent / "out.csv").read_text() == "precious"
    assert plot.read_text() == "precious"


def test_checkpoint_is_not_overwritten_by_its_forecast(
    illness: Finished, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = new.parent / "copy.ckpt"
    ckpt.write_bytes(illness.folder.best.read_bytes())
    typed = ["--data", str(new), "--overwrite"]
    assert main(["forecast", "--ckpt", str(ckpt), "--out", str(ckpt), *typed]) == 1
    assert "copy.ckpt belongs to --ckpt" in capsys.readouterr().err
    assert ckpt.read_bytes() == illness.folder.best.read_bytes()
    before = contents(illness.folder.path)
    out = new.parent / "out.csv"
    for taken in (illness.folder.result, illness.folder.best, illness.folder.path / "x" / "y.png"):
        given = words("forecast", illness, new, "--out", out, "--plot", taken, "--overwrite")
        assert main(given) == 1
        assert "belongs to --ckpt" in capsys.readouterr().err
    assert contents(illness.folder.path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "{folder}/none.csv"], "none.csv does not exist"),
        (["--ckpt", "{folder}/none"], "no checkpoint at"),
        (["--future", "{folder}/none.csv"], "--future takes the path of a CSV file"),
    ],
)
def test_missing_input_is_said_before_an_existing_output(
    illness: Finished,
    new: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = new.with_name("out.csv")
    out.write_text("precious")
    filled = [word.format(folder=new.parent) for word in options]
    assert main(words("forecast", illness, new, "--out", out, *filled)) == 1
    assert message in capsys.readouterr().err
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dat", "x"], "did you mean '--data'?"),
        (["--level", "80"], "did you mean '--levels'?"),
        (["--levels", "80,95"], "as --levels 80 95"),
        (["--missing", "interpolat"], "did you mean 'interpolate'?"),
        (["--layout"], "argument --layout"),
    ],
)
@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_misuse_is_answered_in_few_lines(
    command: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [command, "--ckpt", "run", "--data", "new.csv", "--out", "out.csv"]
    with pytest.raises(SystemExit) as caught:
        main([*typed, *options])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.endswith(f"all options: tsattn {command} --help\n")
    assert error.count("\n") <= 3


def test_unsorted_rows_are_answered_with_the_option(
    illness: Finished, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.read_csv(new).iloc[::-1].to_csv(new, index=False)
    assert main(words("forecast", illness, new, "--out", new.parent / "x.csv")) == 1
    error = capsys.readouterr().err
    assert "sort the rows" in error
    assert "--sort does that" in error


def test_unknown_option_is_a_misuse(illness: Finished, new: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words("forecast", illness, new, "--out", new.parent / "x.csv", "--wings", 3))
    assert caught.value.code == 2


def test_messages_name_the_options_of_the_command(
    illness: Finished, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(new)
    days = pd.date_range("2021-01-01", periods=60).strftime("%d/%m/%y")
    frame.assign(date=[day.replace("21", "05") for day in days]).to_csv(new, index=False)
    assert main(words("forecast", illness, new, "--out", new.parent / "x.csv")) == 1
    error = capsys.readouterr().err
    assert "--data." not in error


def test_new_series_and_sorting_are_asked_for(illness: Finished, tmp_path: Path) -> None:
    file, out = tmp_path / "walk.csv", tmp_path / "out.csv"
    wide_frame(60, names="x", freq="7D").iloc[::-1].to_csv(file, index=False)
    typed = words("forecast", illness, file, "--out", out)
    assert main(typed) == 1
    assert main([*typed, "--new-series"]) == 1
    assert main([*typed, "--new-series", "--sort"]) == 0
    assert pd.read_csv(out).columns.tolist() == ["date", "x"]


def test_missing_matplotlib_is_said_before_anything_is_written(
    illness: Finished,
    new: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    out = new.parent / "out.csv"
    assert (
        main(words("forecast", illness, new, "--out", out, "--plot", out.with_name("p.png"))) == 1
    )
    assert "tsattn[plots]" in capsys.readouterr().err
    assert not out.exists()
