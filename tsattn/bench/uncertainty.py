"""``tsattn bench uncertainty``: coverage and width of intervals on the test windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tsattn.bench.report import refuse_existing
from tsattn.errors import ConfigError, ExistsError
from tsattn.files import write_atomically
from tsattn.forecast import Forecaster
from tsattn.forecast.backtest import Asked, Backtest
from tsattn.forecast.intervals import METHODS, Intervals, Method, checked_levels
from tsattn.options import CommandParser
from tsattn.training.folder import RunFolder
from tsattn.training.reopened import data_of, settings_of

COLUMNS = ("run", "network", "windows", "method", "level", "coverage", "width", "first_step",
           "last_step", "worst_channel")  # fmt: skip


@dataclass(frozen=True, eq=False)
class TestPart:
    """A run's network, and the rows of its test windows.

    Attributes:
        name: how the run was called.
        forecaster: its network.
        frame: all rows up to the end of its test part.
        windows: how many test windows there are.
    """

    __test__ = False

    name: str
    forecaster: Forecaster
    frame: pd.DataFrame
    windows: int

    @classmethod
    def of(cls, folder: Path, root: Path | None = None) -> "TestPart":
        """Open a run of one series.

        Raises:
            ConfigError: a run of several series.
            TsattnError: no run folder, or one without data or checkpoint.
        """
        data = data_of(settings_of(RunFolder(folder)), root)
        prepared, panel = data.prepared, data.prepared.panel
        if panel.num_series > 1:
            raise ConfigError(f"{folder}: {panel.num_series} series; expected a wide file's run")
        (series,) = panel.series
        frame = pd.DataFrame(series.values_RC, columns=list(panel.channels))
        frame.insert(0, "date", series.times)
        frame = frame.iloc[: prepared.borders[0].test[1]]
        return cls(folder.name, Forecaster.load(folder), frame, len(prepared.test))

    @property
    def methods(self) -> list[Method]:
        """The kinds of intervals that its checkpoint has something for."""
        calibrated: list[Method] = ["conformal", "adaptive"]
        own: list[Method] = ["quantile"]
        intervals = self.intervals
        made = calibrated if intervals.calibration is not None else []
        return made + (own if intervals.quantiles is not None else [])

    def backtests(self, levels: Sequence[float]) -> dict[Method, Backtest]:
        """Forecast all test windows, as `tsattn backtest --windows N --step 1` does, by method."""
        made, intervals = self.forecaster.backtest(self.frame, self.windows), self.intervals
        return {
            method: made.with_bands(Asked(tuple(levels), method, intervals))
            for method in self.methods
        }

    @property
    def intervals(self) -> Intervals:
        """What the checkpoint has for intervals."""
        return self.forecaster.intervals


def rows_of(
    part: TestPart, levels: Sequence[float], backtests: Mapping[Method, Backtest]
) -> list[dict[str, object]]:
    """Return a row for each method and level, its columns `COLUMNS`."""
    rows: list[dict[str, object]] = []
    for method, made in backtests.items():
        total, steps, channels = (
            made.band_scores("standardised", kept) for kept in ([], ["step"], ["channel"])
        )
        for level in levels:
            coverage = f"coverage-{level:.12g}"
            worst = int(channels[coverage].argmin())
            rows.append(
                {
                    "run": part.name,
                    "network": type(part.forecaster.network).__name__,
                    "windows": part.windows,
                    "method": _called(method, part),
                    "level": level,
                    "coverage": total[coverage][0],
                    "width": total[f"width-{level:.12g}"][0],
                    "first_step": steps[coverage][0],
                    "last_step": steps[coverage][-1],
                    "worst_channel": (
                        f"{made.names[worst]} ({100 * channels[coverage][worst]:.0f})"
                    ),
                }
            )
    return rows


def _called(method: Method, part: TestPart) -> str:
    if part.forecaster.intervals.quantiles is None or method == "quantile":
        return method
    return {"conformal": "CQR", "adaptive": "adaptive CQR"}[method]


def as_markdown(frame: pd.DataFrame) -> str:
    """Return the rows as a Markdown table, shares in percent."""
    lines = [
        "| run | intervals | level | coverage | width | first, last step | worst channel |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in frame.to_dict("records"):
        lines.append(
            f"| {row['run']} | {row['method']} | {row['level']:g} | {100 * row['coverage']:.1f} | "
            f"{row['width']:.2f} | {100 * row['first_step']:.0f}, {100 * row['last_step']:.0f} | "
            f"{row['worst_channel']} |"
        )
    return "\n".join(lines) + "\n"


def uncertainty(words: Sequence[str]) -> int:
    """Run ``tsattn bench uncertainty`` as typed after that.

    Args:
        words: the options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: a run that cannot be opened, or a file that would be replaced.
    """
    parser = CommandParser(
        prog="tsattn bench uncertainty",
        description="Coverage and mean standardised width of conformal, adaptive and quantile "
        f"intervals ({', '.join(METHODS)}) over all test windows of runs, as a Markdown table.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of tsattn fit")
    parser.add_argument("--levels", type=float, nargs="+", default=[80.0, 90.0, 95.0])
    parser.add_argument("--root", type=Path | None, help="folder searched first for catalog files")
    parser.add_argument("--out", type=Path | None, help="CSV file to write")
    parser.add_argument("--plot", type=Path | None, help="folder for a picture of each run")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    given = parser.parse_args(list(words))
    refuse_existing(given.out, overwrite=given.overwrite)
    levels = checked_levels(given.levels)
    rows: list[dict[str, object]] = []
    for run in given.runs:
        part = TestPart.of(run, given.root)
        backtests = part.backtests(levels)
        rows += rows_of(part, levels, backtests)
        if given.plot:
            _draw(part.name, backtests, given.plot, overwrite=given.overwrite)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    print(as_markdown(frame), end="")
    if given.out:
        text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomically(given.out, text)
    return 0


def _draw(
    name: str, backtests: Mapping[Method, Backtest], folder: Path, *, overwrite: bool
) -> None:
    from tsattn.forecast.pictures import draw_errors

    folder.mkdir(parents=True, exist_ok=True)
    for method, made in backtests.items():
        path = folder / f"{name}-{method}.png"
        if path.exists() and not overwrite:
            raise ExistsError(f"{path} exists; replace it with --overwrite")
        draw_errors(path, made)
