"""Pictures of forecasts and of their errors. They need the extra ``plots``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsattn.forecast.backtest import Backtest
from tsattn.forecast.outlook import Outlook
from tsattn.panels import (
    FORECAST,
    MOST,
    PAST,
    along_time,
    panels_of,
    plain_text,
    say_how_many,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@plain_text()
def draw_outlook(path: Path, outlook: Outlook, file_format: str = "png") -> None:
    """Draw the end of the context and the forecast with its intervals, in original units over time.

    One panel per channel or series, the last 8 of them.

    Args:
        path: the file to write.
        outlook: the forecast.
        file_format: any that matplotlib writes.
    """
    history = outlook.history
    horizon = outlook.mean_KH.shape[1]
    tail = min(history.values_KN.shape[1], 2 * horizon)
    shown = list(range(len(history.names)))[-MOST:]
    figure, axes = panels_of(len(shown))
    for axis, place in zip(axes, shown, strict=False):
        seen = history.plain(history.times[history.rows_KN[place, -tail:]])
        unseen = history.plain(outlook.calendar.future[outlook.calendar.which_K[place]])
        past = history.values_KN[place, -tail:]
        axis.plot(seen, past, color=PAST, linewidth=0.9, label="history")
        levels = sorted(outlook.bands, reverse=True)
        for level, color in zip(levels, _shades(len(levels)), strict=True):
            band = outlook.bands[level]
            low, high = (end[0, :, place].numpy() for end in (band.lower_WHK, band.upper_WHK))
            axis.fill_between(unseen, low, high, color=color, linewidth=0, label=f"{level:g} %")
        axis.plot(unseen, outlook.mean_KH[place], color=FORECAST, linewidth=1.3, label="forecast")
        axis.axvline(unseen[0], color="#999999", linewidth=0.7, linestyle=":")
        title(axis, history.names[place])
        along_time(axis, unseen)
    say_how_many(figure, len(history.names))
    handles, labels = axes[0].get_legend_handles_labels()  # beside the panels: it hides nothing
    figure.legend(handles, labels, loc="outside upper right", ncols=9, fontsize=7, frameon=False)
    figure.savefig(path, dpi=130, format=file_format)


def _shades(count: int) -> np.ndarray:
    """Return opaque tints of the forecast's colour, from pale to strong: one lies on the other."""
    from matplotlib.colors import to_rgb

    return 1 - np.linspace(0.15, 0.4, count)[:, None] * (1 - np.array(to_rgb(FORECAST)))


@plain_text()
def draw_errors(path: Path, backtest: Backtest, file_format: str = "png") -> None:
    """Draw standardised MSE and MAE by horizon step: the mean, and the last 8 channels.

    Where levels were scored, also the coverage of their bands by step, beside the level, and their
    mean standardised width.

    Args:
        path: the file to write.
        backtest: what was scored.
        file_format: any that matplotlib writes.
    """
    levels = sorted(backtest.bands)
    figure, axes = panels_of(4 if levels else 2)
    mean, single = backtest.scores("step"), backtest.scores("channel", "step")
    mean, single = (one[one["unit"] == "standardised"] for one in (mean, single))
    for axis, score in zip(axes, ("mse", "mae"), strict=False):
        for name in backtest.names[-MOST:]:
            rows = single[single["channel"] == name]
            axis.plot(rows["step"], rows[score], linewidth=0.7)
        axis.plot(mean["step"], mean[score], color=PAST, linewidth=1.6)
        title(axis, f"{score.upper()}, standardised", along="horizon step")
        axis.set_ylim(bottom=0)
    names = [*backtest.names[-MOST:], "all"]  # given, since matplotlib leaves out those like _this
    axes[0].legend(axes[0].lines, names, fontsize=6, loc="upper left", frameon=False, ncols=2)
    say_how_many(figure, len(backtest.names))
    if levels:
        _draw_bands(axes[2], axes[3], mean, levels)
    figure.savefig(path, dpi=130, format=file_format)


def _draw_bands(
    coverage: "Axes", width: "Axes", mean: pd.DataFrame, levels: Sequence[float]
) -> None:
    """Draw how much of the truth the bands hold at every step, and how wide they are."""
    for place, level in enumerate(levels):
        color = f"C{place}"
        coverage.plot(mean["step"], 100 * mean[f"coverage-{level:.12g}"], color=color, linewidth=1)
        coverage.axhline(level, color=color, linewidth=0.8, linestyle=":")
        label = f"{level:g} %"
        width.plot(mean["step"], mean[f"width-{level:.12g}"], color=color, linewidth=1, label=label)
    title(coverage, "coverage in percent (dotted: the level)", along="horizon step")
    title(width, "mean width, standardised", along="horizon step")
    width.set_ylim(bottom=0)
    width.legend(fontsize=7, frameon=False)
