"""Pictures of forecasts and of their errors. They need the extra ``plots``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsattn.errors import MissingExtraError
from tsattn.forecast.backtest import Backtest
from tsattn.forecast.outlook import Outlook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 8
_PAST, _FORECAST = "#333333", "#c8401e"


def require_pictures() -> None:
    """Refuse to go on where no picture can be drawn.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib; install it with: pip install 'tsattn[plots]'"
        ) from error


def draw_outlook(path: Path, outlook: Outlook, file_format: str = "png") -> None:
    """Draw the end of the context and the forecast with its intervals, in original units over time.

    One panel per channel or series, the last 8 of them.

    Args:
        path: the file to write.
        outlook: the forecast.
        file_format: any that matplotlib writes.
    """
    require_pictures()
    from matplotlib.dates import ConciseDateFormatter

    history = outlook.history
    horizon = outlook.mean_KH.shape[1]
    tail = min(history.values_KN.shape[1], 2 * horizon)
    shown = list(range(len(history.names)))[-PANELS:]
    figure, axes = _figure(len(shown))
    for axis, place in zip(axes, shown, strict=False):
        seen = history.plain(history.times[history.rows_KN[place, -tail:]])
        unseen = history.plain(outlook.calendar.future[outlook.calendar.which_K[place]])
        past = history.values_KN[place, -tail:]
        axis.plot(seen, past, color=_PAST, linewidth=0.9, label="history")
        levels = sorted(outlook.bands, reverse=True)
        for level, color in zip(levels, _shades(len(levels)), strict=True):
            band = outlook.bands[level]
            ends = (end[0, :, place].numpy() for end in (band.lower_WHK, band.upper_WHK))
            axis.fill_between(unseen, *ends, color=color, linewidth=0, label=f"{level:g} %")
        axis.plot(unseen, outlook.mean_KH[place], color=_FORECAST, linewidth=1.3, label="forecast")
        axis.axvline(unseen[0], color="#999999", linewidth=0.7, linestyle=":")
        axis.set_title(history.names[place], fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        if not history.source.table.integers:
            axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
        for along in (axis.xaxis, axis.yaxis):
            along.get_offset_text().set_fontsize(7)
    handles, labels = axes[0].get_legend_handles_labels()  # beside the panels: it hides nothing
    figure.legend(handles, labels, loc="outside upper right", ncols=9, fontsize=7, frameon=False)
    figure.savefig(path, dpi=130, format=file_format)


def _shades(count: int) -> np.ndarray:
    """Return opaque tints of the forecast's colour, from pale to strong: one lies on the other."""
    from matplotlib.colors import to_rgb

    return 1 - np.linspace(0.15, 0.4, count)[:, None] * (1 - np.array(to_rgb(_FORECAST)))


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
    figure, axes = _figure(4 if levels else 2)
    mean, single = backtest.scores("step"), backtest.scores("channel", "step")
    mean, single = (one[one["unit"] == "standardised"] for one in (mean, single))
    for axis, score in zip(axes, ("mse", "mae"), strict=False):
        for name in backtest.names[-PANELS:]:
            rows = single[single["channel"] == name]
            axis.plot(rows["step"], rows[score], linewidth=0.7, label=name)
        axis.plot(mean["step"], mean[score], color=_PAST, linewidth=1.6, label="all")
        axis.set_title(f"{score.upper()}, standardised", fontsize=9, loc="left")
        axis.set_xlabel("horizon step", fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=6, loc="upper left", frameon=False, ncols=2)
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
    coverage.set_title("coverage in percent (dotted: the level)", fontsize=9, loc="left")
    width.set_title("mean width, standardised", fontsize=9, loc="left")
    width.set_ylim(bottom=0)
    width.legend(fontsize=7, frameon=False)
    for axis in (coverage, width):
        axis.set_xlabel("horizon step", fontsize=8)
        axis.tick_params(labelsize=7)


def _figure(panels: int) -> "tuple[Figure, list]":
    require_pictures()
    from matplotlib.figure import Figure

    columns = 1 if panels == 1 else 2
    rows = -(-panels // columns)
    figure = Figure(figsize=(5.2 * columns, 1.9 * rows + 0.5), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes
