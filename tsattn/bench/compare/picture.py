"""The picture of a comparison. It needs the extra ``plots``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsattn.bench.compare.differences import Compared, Pairing
from tsattn.bench.compare.sides import Scored
from tsattn.bench.paired import Difference
from tsattn.files import replacing
from tsattn.panels import along_time, on_axis, plain_text
from tsattn.training.datamodule import ForecastData
from tsattn.training.pictures import window_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANNELS = 30
_COLOURS = ("#555555", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")


@plain_text()
def draw(
    path: Path,
    sides: Sequence[Scored],
    compared: Sequence[Compared],
    pairing: Pairing,
    data: ForecastData,
) -> None:
    """Draw the error along the horizon, its difference, that of the channels, and that over time.

    Args:
        path: the PNG file to write.
        sides: what was compared.
        compared: every side beside the first.
        pairing: how they were paired.
        data: the data, for names and times.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.6), layout="constrained")
    axes = figure.subplots(2, 2)
    colours = {side.name: _COLOURS[i % len(_COLOURS)] for i, side in enumerate(sides)}
    _curves(axes[0, 0], sides, pairing, colours)
    _step_differences(axes[0, 1], compared, colours, sides[0].name)
    _channel_differences(axes[1, 0], compared, colours, data.prepared.panel.channels)
    _over_time(axes[1, 1], sides, pairing, colours, data)
    intervals = "" if pairing.too_few else " with 95 % intervals, each point by itself"
    figure.suptitle(
        f"{data.prepared.panel.name}, horizon {data.horizon}: differences to {sides[0].name}"
        f"{intervals}\n({pairing.method})",
        fontsize=11,
    )
    with replacing(path) as file:
        figure.savefig(file, dpi=130, format="png")


def _curves(
    axis: "Axes", sides: Sequence[Scored], pairing: Pairing, colours: dict[str, str]
) -> None:
    for side in sides:
        steps = np.mean([run.steps.scores("mse") for run in pairing.runs_of(side)], axis=0)
        axis.plot(range(1, len(steps) + 1), steps, color=colours[side.name], label=side.name)
    _titled(axis, "test MSE along the horizon", "step", "MSE")
    axis.legend(fontsize=8, frameon=False)


def _step_differences(
    axis: "Axes", compared: Sequence[Compared], colours: dict[str, str], reference: str
) -> None:
    axis.axhline(0, color=colours[reference], linewidth=1)
    for one in compared:
        found, colour = one.steps["mse"], colours[one.name]
        steps = range(1, len(found) + 1)
        axis.plot(steps, [d.mean for d in found], color=colour, label=one.name)
        low, high = _ends(found)
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    _titled(axis, f"MSE − that of {reference}, along the horizon", "step", "difference of MSE")


def _channel_differences(
    axis: "Axes", compared: Sequence[Compared], colours: dict[str, str], names: Sequence[str]
) -> None:
    scored, shown = _largest([one.channels["mse"] for one in compared])
    axis.axvline(0, color="#555555", linewidth=1)
    for place, one in enumerate(compared):
        found = [one.channels["mse"][c] for c in shown]
        height = np.arange(len(shown)) + 0.8 * (place + 0.5) / len(compared) - 0.4
        low, high = _ends(found)
        means = np.array([d.mean for d in found])
        bars: Any = [np.maximum(0, means - low), np.maximum(0, high - means)]
        axis.errorbar(means, height, xerr=bars, fmt="o", color=colours[one.name], markersize=4)
    axis.set_yticks(range(len(shown)), [names[c] for c in shown])
    axis.invert_yaxis()
    title = f"of the {len(shown)} largest" if len(shown) < scored else "of every channel"
    if scored < len(names):
        title += f", {len(names) - scored} of {len(names)} have none"
    _titled(axis, f"difference {title}", "difference of MSE", "")


def _over_time(
    axis: "Axes",
    sides: Sequence[Scored],
    pairing: Pairing,
    colours: dict[str, str],
    data: ForecastData,
) -> None:
    windows = [
        np.mean([run.by_window("mse") for run in pairing.runs_of(side)], axis=0) for side in sides
    ]
    firsts = [window_times(data, w)[data.context] for w in range(len(windows[0]))]
    times = on_axis(pd.Index(firsts))
    for side, values in list(zip(sides, windows, strict=True))[1:]:
        difference = values - windows[0]
        axis.plot(times, difference, color=colours[side.name], linewidth=1.0, label=side.name)
    axis.axhline(0, color=colours[sides[0].name], linewidth=1)
    along_time(axis, times)
    title = f"MSE − that of {sides[0].name}, of every window"
    _titled(axis, title, "first step of the horizon", "difference of MSE")


def _largest(sides: Sequence[Sequence[Difference]]) -> tuple[int, list[int]]:
    """Return how many channels have a difference, and the largest of the first side."""
    scored = [c for c, found in enumerate(zip(*sides, strict=True)) if any(d.pairs for d in found)]
    order = sorted(scored, key=lambda c: -abs(np.nan_to_num(sides[0][c].mean)))[:CHANNELS]
    return len(scored), sorted(order)


def _ends(found: Sequence[Difference]) -> tuple[Any, Any]:
    low = np.array([d.mean if d.low is None else d.low for d in found])
    return low, np.array([d.mean if d.high is None else d.high for d in found])


def _titled(axis: "Axes", title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=8)
