"""``tsattn forecast | backtest``: new data in, a CSV file and a picture out."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from jsonargparse import Namespace
from rich.table import Table

from tsattn.console import open_console
from tsattn.data.amounts import counted
from tsattn.data.reading import Duplicates, Gaps, Missing, Reading
from tsattn.errors import CheckpointError, ConfigError, DataError, ExistsError
from tsattn.files import replacing
from tsattn.forecast import Forecaster
from tsattn.forecast.outlook import Outlook
from tsattn.options import CommandParser, naming_options, options_of, with_own_options

if TYPE_CHECKING:
    from tsattn.forecast.backtest import Backtest

_ENDINGS = {"--out": (".csv",), "--plot": (".png", ".svg", ".pdf")}
"""What each output can be."""

_SHOWN = 20
"""Channels or series of a table on the terminal, at the most."""

_ABOUT = {
    "forecast": "Forecast the horizon after the last row of new data, in their own units.",
    "backtest": "Forecast the end of data that are known, window by window, and score that.",
}


def forecast(words: Sequence[str]) -> int:
    """Run ``tsattn forecast`` as typed after that.

    Args:
        words: the options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: the checkpoint or the data cannot be used, or a file would be replaced.
    """
    parser = _parser("forecast")
    parser.add_argument(
        "--future", type=Path | None, help="CSV file with the covariates that are known ahead"
    )
    given = parser.parse_args(list(words))
    _require_inputs(given)
    _require_free(given)
    forecaster = Forecaster.load(given.ckpt)
    with naming_options(options := options_of(parser)):
        outlook = forecaster.outlook(
            given.data,
            given.levels,
            future=given.future,
            method=given.method,
            new_series=given.new_series,
            sort=given.sort,
            reading=_reading(given),
        )
    _write(given, outlook.frame(), outlook)
    _show_notes(outlook.history.notes, options)
    names, times = outlook.history.names, outlook.times[0]
    print(
        f"{len(times)} rows ahead of {counted(len(names), forecaster.trained.kind)}, {times[0]} to "
        f"{times[-1]}: {given.out}" + (f", {given.plot}" if given.plot else "")
    )
    return 0


def backtest(words: Sequence[str]) -> int:
    """Run ``tsattn backtest`` as typed after that.

    Args:
        words: the options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: the checkpoint or the data cannot be used, or a file would be replaced.
    """
    parser = _parser("backtest")
    parser.add_argument("--windows", type=int, default=1, help="how many windows")
    parser.add_argument("--step", type=int, default=1, help="rows between two windows")
    parser.add_argument(
        "--refit", action="store_true", help="train again before each window, on the rows before it"
    )
    given = parser.parse_args(list(words))
    _require_inputs(given)
    _require_free(given)
    forecaster = Forecaster.load(given.ckpt)
    with naming_options(options := options_of(parser)):
        scored = forecaster.backtest(
            given.data,
            given.windows,
            given.step,
            given.refit,
            levels=given.levels,
            method=given.method,
            new_series=given.new_series,
            sort=given.sort,
            reading=_reading(given),
        )
    _write(given, scored.scores() if given.out else None, scored)
    _show_notes(scored.notes, options)
    _show_scores(scored.scores("channel"), scored.scores("total"))
    if len(scored.names) > _SHOWN:
        where = f"all are in {given.out}" if given.out else "--out FILE.csv keeps all"
        print(
            f"the last {_SHOWN} of {counted(len(scored.names), forecaster.trained.kind)}; {where}"
        )
    for file in (given.out, given.plot):
        if file:
            print(file)
    return 0


def _parser(command: str) -> CommandParser:
    parser = CommandParser(prog=f"tsattn {command}", description=_ABOUT[command])
    add = parser.add_argument
    add("--ckpt", type=Path, required=True, help="run folder, export, or a checkpoint's file")
    add("--data", type=Path, required=True, help="CSV file, wide or long (unique_id, ds, y)")
    add("--out", type=Path | None, required=command == "forecast", help="file to write, .csv")
    add("--plot", type=Path | None, help=f"picture to write, {' or '.join(_ENDINGS['--plot'])}")
    add("--levels", type=float, nargs="+", help="coverage of intervals in percent, as 80 95")
    methods = "conformal, quantile" + (", adaptive" if command == "backtest" else "")
    add("--method", type=str | None, help=f"how intervals are made: {methods}")
    add("--overwrite", action="store_true", help="replace existing output files")
    add("--new-series", action="store_true", help="also names the network was not trained on")
    add("--sort", action="store_true", help="order the rows of each series by time first")
    add("--delimiter", type=str | None, help="sign between cells")
    add("--decimal", type=str | None, help="decimal sign, . or ,")
    add("--day_first", type=bool | None, help="whether 03/04/2020 is the third of April")
    add("--time_column", type=str | None, help="header of the time column")
    add("--layout", type=str | None, help="wide or long")
    add("--targets", type=list[str] | None, help="columns to forecast, as '[OT,HUFL]', of a wide "
        "file; default: as in fit")  # fmt: skip
    add("--missing", type=Missing | None, help="error, interpolate or mask; default: as in fit")
    add("--duplicates", type=Duplicates | None, help="error, first, last or mean; as in fit")
    add("--gaps", type=Gaps | None, help="error or regularise; default: as in fit")
    add(
        "--time_zone", type=str | None, help="of local timestamps, such as Europe/Berlin; as in fit"
    )
    return parser


def _reading(given: Namespace) -> Reading:
    if given.layout not in (None, "wide", "long"):
        raise ConfigError(f"unknown layout {given.layout!r}; expected wide or long")
    return Reading(
        given.delimiter,
        given.decimal,
        given.day_first,
        given.time_column,
        given.layout,
        given.missing,
        given.duplicates,
        given.gaps,
        given.time_zone,
        targets=tuple(given.targets or ()),
    )


def _require_inputs(given: Namespace) -> None:
    """Refuse to go on without a checkpoint or data, before anything else is looked at.

    Raises:
        CheckpointError: there is nothing at ``--ckpt``.
        DataError: there is no file at ``--data`` or ``--future``.
    """
    if not given.ckpt.exists():
        raise CheckpointError(
            f"no checkpoint at {given.ckpt}; --ckpt takes a run folder, an export, or a "
            "checkpoint's file"
        )
    for option in ("data", "future"):
        path = given.get(option)
        if path and not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what}; --{option} takes the path of a CSV file")


def _require_free(given: Namespace) -> None:
    """Refuse to replace a file, or to write one of another kind, before anything is computed.

    Raises:
        ExistsError: an output exists and ``--overwrite`` was not given.
        ConfigError: an output is a folder, the data, in the checkpoint's folder, or named twice, or
            its ending is none of those that can be written.
    """
    named = {"--out": given.out, "--plot": given.plot}
    outputs = {option: path for option, path in named.items() if path}
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ConfigError(f"--out and --plot are both {given.out}; give two names")
    for option, path in outputs.items():
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file")
        inputs = [one for one in (given.data, given.get("future")) if one]
        if path.resolve() in [one.resolve() for one in inputs]:
            raise ConfigError(f"{path} is the data; write somewhere else")
        if path.resolve().is_relative_to(given.ckpt.resolve()):
            raise ConfigError(f"{path} belongs to --ckpt {given.ckpt}; write somewhere else")
        if path.suffix.lower() not in _ENDINGS[option]:
            ends = " or ".join(_ENDINGS[option])
            raise ConfigError(f"{option} {path}: expected a name that ends in {ends}")
        if path.exists() and not given.overwrite:
            raise ExistsError(f"{path} exists; choose another name, or replace it with --overwrite")
    if given.plot:
        from tsattn.panels import require_pictures

        require_pictures()


def _write(given: Namespace, frame: pd.DataFrame | None, made: "Outlook | Backtest") -> None:
    """Write the frame and the picture; both replace what is there once both are whole."""
    with ExitStack() as both:
        if frame is not None:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            file = both.enter_context(replacing(given.out))
            file.write_bytes(frame.to_csv(index=False, lineterminator="\n").encode())
        if given.plot:
            given.plot.parent.mkdir(parents=True, exist_ok=True)
            ending = given.plot.suffix.removeprefix(".").lower()
            _draw(both.enter_context(replacing(given.plot)), made, ending)


def _draw(path: Path, made: "Outlook | Backtest", file_format: str) -> None:
    from tsattn.forecast.pictures import draw_errors, draw_outlook

    if isinstance(made, Outlook):
        draw_outlook(path, made, file_format)
    else:
        draw_errors(path, made, file_format)


def _show_notes(notes: Sequence[str], options: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {with_own_options(note, options)}")


def _show_scores(channels: pd.DataFrame, total: pd.DataFrame) -> None:
    """Print the scores of each channel and of all, in both units."""
    bands = [name for name in channels.columns if name.startswith(("coverage-", "width-"))]
    scores = [n for n in channels.columns if n not in ("unit", "channel", *bands)]
    table = Table()
    for title in ("", "unit", *(name.upper() for name in scores)):
        table.add_column(title, justify="left" if title in ("", "unit") else "right")
    shown = channels[channels["channel"].isin(list(channels["channel"].unique())[-_SHOWN:])]
    for frame, style in ((shown, None), (total.assign(channel="all"), "bold")):
        for row in frame.to_dict("records"):
            numbers = (_number(row[name]) for name in scores)
            table.add_row(str(row["channel"]), str(row["unit"]), *numbers, style=style)
    console = open_console(120)
    console.print(table)
    if bands:
        console.print(_band_table(shown, total, bands))


def _band_table(channels: pd.DataFrame, total: pd.DataFrame, bands: Sequence[str]) -> Table:
    """Return coverage in percent and mean width (standardised) of the levels."""
    table = Table(title="intervals: coverage in percent, mean width in standardised units")
    table.add_column("")
    for name in bands:
        score, _, level = name.partition("-")
        table.add_column(f"{level} % {score}", justify="right")
    for frame, style in ((channels, None), (total.assign(channel="all"), "bold")):
        for row in frame[frame["unit"] == "standardised"].to_dict("records"):
            cells = (
                f"{100 * row[name]:.1f}" if name.startswith("coverage") else _number(row[name])
                for name in bands
            )
            table.add_row(str(row["channel"]), *cells, style=style)
    return table


def _number(value: float) -> str:
    """Write a score; one that there is none of is left empty."""
    return "" if math.isnan(value) else f"{value:.4g}"
