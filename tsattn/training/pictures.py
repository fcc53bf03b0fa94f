"""Pictures of a run. They need the extra ``plots``."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from tsattn.errors import MissingExtraError
from tsattn.training.datamodule import ForecastData
from tsattn.training.schedules import Place, Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 8
_TRUTH, _FORECAST = "#333333", "#c8401e"


def draw_forecast(
    path: Path, window: int, forecast_HC: Tensor, data: ForecastData, title: str
) -> None:
    """Draw a test window: the end of its context, the truth and the forecast.

    One panel per channel (the last 8 of them), in original units over calendar time.

    Args:
        path: the PNG file to write.
        window: which of the test windows.
        forecast_HC: its standardised forecast.
        data: the data it was made from.
        title: title of the picture.
    """
    figure, axes = _figure(min(data.channels, PANELS))
    from matplotlib.dates import ConciseDateFormatter

    windows, scaler = data.prepared.test, data.prepared.scaler
    series = windows.series_W[window : window + 1]
    batch = windows[window]
    past, truth, forecast = (
        scaler.to_original(part, series)[0].numpy()
        for part in (batch.past_BTC, batch.truth(), forecast_HC.unsqueeze(0))
    )
    times = window_times(data, window)
    shown = list(range(data.channels))[-PANELS:]
    tail = min(data.context, 2 * data.horizon)
    for axis, channel in zip(axes, shown, strict=False):
        seen, unseen = times[data.context - tail : data.context], times[data.context :]
        axis.plot(seen, past[-tail:, channel], color=_TRUTH, linewidth=0.9)
        axis.plot(unseen, truth[:, channel], color=_TRUTH, linewidth=0.9, label="truth")
        axis.plot(unseen, forecast[:, channel], color=_FORECAST, linewidth=1.3, label="forecast")
        axis.axvline(unseen[0], color="#999999", linewidth=0.7, linestyle=":")
        axis.set_title(data.prepared.panel.channels[channel], fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
        for along in (axis.xaxis, axis.yaxis):
            along.get_offset_text().set_fontsize(7)
    handles, labels = axes[0].get_legend_handles_labels()  # beside the panels: it hides nothing
    figure.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)


def draw_schedule(
    path: Path, schedule: Schedule, learning_rate: float, total: int, steps_per_epoch: int
) -> None:
    """Draw the learning rate and beta1 of every step over the epochs.

    Args:
        path: the PNG file to write.
        schedule: the schedule.
        learning_rate: the rate its factor multiplies.
        total: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps of an epoch.
    """
    steps = np.unique(np.linspace(0, total - 1, min(total, 4000)).astype(int))
    places = [Place(int(s) // steps_per_epoch + 1, int(s), total) for s in steps]
    figure, axes = _figure(2)
    when = steps / steps_per_epoch + 1
    axes[0].plot(when, [learning_rate * schedule.factor(p) for p in places], color=_FORECAST)
    axes[1].plot(when, [schedule.momentum(p) for p in places], color=_TRUTH)
    for axis, name in zip(axes, ("learning rate", "Adam's beta1"), strict=False):
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=130)


def window_times(data: ForecastData, window: int) -> pd.DatetimeIndex:
    """Return the times of a test window, context and horizon."""
    panel, windows = data.prepared.panel, data.prepared.test
    series = int(windows.series_W[window])
    start = int(windows.starts_W[window]) - sum(panel.lengths[:series])
    return panel.series[series].times[start : start + data.context + data.horizon]


def _figure(panels: int) -> "tuple[Figure, list]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib; install it with: pip install 'tsattn[plots]'"
        ) from error
    columns = 1 if panels == 1 else 2
    rows = -(-panels // columns)
    figure = Figure(figsize=(5.2 * columns, 1.9 * rows + 0.5), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes
