"""Pictures of forecasts and of their errors. They need the extra ``plots``."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsattn.errors import MissingExtraError
from tsattn.forecast.backtest import Backtest
from tsattn.forecast.outlook import Outlook

if TYPE_CHECKING:
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


def draw_outlook(path: Path, outlook: Outlook) -> None:
    """Draw the end of the context and the forecast, in original units over time.

    One panel per channel or series, the last 8 of them.

    Args:
        path: the PNG file to write.
        outlook: the forecast.
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
        axis.plot(seen, history.values_KN[place, -tail:], color=_PAST, linewidth=0.9)
        axis.plot(unseen, outlook.mean_KH[place], color=_FORECAST, linewidth=1.3, label="forecast")
        axis.axvline(unseen[0], color="#999999", linewidth=0.7, linestyle=":")
        axis.set_title(history.names[place], fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        if not history.source.table.integers:
            axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axes[0].legend(fontsize=7, loc="upper left", frameon=False)
    figure.savefig(path, dpi=130, format="png")


def draw_errors(path: Path, backtest: Backtest) -> None:
    """Draw standardised MSE and MAE by horizon step: the mean, and the last 8 channels.

    Args:
        path: the PNG file to write.
        backtest: what was scored.
    """
    figure, axes = _figure(2)
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
    figure.savefig(path, dpi=130, format="png")


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
