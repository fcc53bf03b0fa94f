"""Forecasts of one test window, kept among the results, as lines of a drawing."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsattn.bench.leaderboard.plots import COLOURS, Tick, round_values
from tsattn.bench.leaderboard.tables import label, network_label
from tsattn.errors import DataError

FORECASTS = Path("pictures") / "forecasts.csv"
"""File below the results, written by ``tsattn leaderboard forecasts``."""

COLUMNS = (
    "protocol", "model", "dataset", "seed", "window", "channel", "value_activation", "step",
    "time", "value",
)  # fmt: skip
"""``value_activation`` is empty for the truth; steps from 1 on are the horizon."""

_WIDTH, _HEIGHT, _LEFT, _TOP = 640.0, 170.0, 76.0, 8.0
Line = Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """A line of the picture: its points as SVG wants them."""

    name: str
    colour: str
    points: str


@dataclass(frozen=True)
class ForecastPlot:
    """The end of a window's context, what came then, and what was forecast."""

    title: str
    curves: tuple[Curve, ...]
    begin: float
    ticks: tuple[Tick, ...]
    times: tuple[Tick, ...]
    left: float = _LEFT
    right: float = _LEFT + _WIDTH
    top: float = _TOP
    bottom: float = _TOP + _HEIGHT


def forecast_plots(results: Path) -> dict[str, list[ForecastPlot]]:
    """Return the pictures of every dataset whose forecasts are kept.

    Raises:
        DataError: the file of forecasts cannot be read; the message names file and line.
    """
    path = results / FORECASTS
    if not path.is_file():
        return {}
    groups: dict[tuple[str, ...], list[Line]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{path}, line 1: expected the header {','.join(COLUMNS)}")
        for line in reader:
            try:
                _ = int(line["step"]), float(line["value"])
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
            groups.setdefault(tuple(line[name] for name in COLUMNS[:6]), []).append(line)
    plots: dict[str, list[ForecastPlot]] = {}
    for place, lines in sorted(groups.items()):
        plots.setdefault(place[2], []).append(_plot(place, lines))
    return plots


def _plot(place: tuple[str, ...], lines: Sequence[Line]) -> ForecastPlot:
    protocol, model, dataset, seed, window, channel = place
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        values = series.setdefault(line["value_activation"], [])
        values.append((int(line["step"]), float(line["value"])))
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    times = {int(line["step"]): line["time"] for line in lines}
    if all(time.endswith(" 00:00") for time in times.values()):
        times = {step: time.removesuffix(" 00:00") for step, time in times.items()}
    first, last = min(times), max(times)

    def x(step: int) -> float:
        return round(_LEFT + _WIDTH * (step - first) / max(1, last - first), 1)

    def y(value: float) -> float:
        return round(_TOP + _HEIGHT * (high - value) / (high - low), 1)

    names = [name for name in ("", *COLOURS) if name in series]
    return ForecastPlot(
        title=f"{network_label(protocol, model)} on {label(dataset)}, seed {seed}: "
        f"test window {window}, channel {channel}",
        curves=tuple(
            Curve(
                label(name) if name else "truth",
                COLOURS[name] if name else "#000000",
                " ".join(f"{x(step)},{y(value)}" for step, value in sorted(series[name])),
            )
            for name in names
        ),
        begin=x(0) if first <= 0 else x(first),
        ticks=tuple(Tick(y(v), f"{v:,.{d}f}") for v, d in round_values(low, high, most=5)),
        times=tuple(Tick(x(step), times[step]) for step in sorted({first, max(first, 1), last})),
    )
