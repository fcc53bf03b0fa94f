"""Pictures of a run. They need the extra ``plots``."""

from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from tsattn.panels import FORECAST, MOST, PAST, along_time, on_axis, panels_of, plain_text, title
from tsattn.training.datamodule import ForecastData
from tsattn.training.schedules import Place, Schedule


@plain_text()
def draw_forecast(
    path: Path, window: int, forecast_HC: Tensor, data: ForecastData, heading: str
) -> None:
    """Draw a test window: the end of its context, the truth and the forecast.

    One panel per channel (the last 8 of them), in original units over calendar time.

    Args:
        path: the PNG file to write.
        window: which of the test windows.
        forecast_HC: its standardised forecast.
        data: the data it was made from.
        heading: title of the picture.
    """
    figure, axes = panels_of(min(data.channels, MOST))
    windows, scaler = data.prepared.test, data.prepared.scaler
    series = windows.series_W[window : window + 1]
    batch = windows[window]
    past, truth, forecast = (
        scaler.to_original(part, series)[0].numpy()
        for part in (batch.past_BTC, batch.truth(), forecast_HC.unsqueeze(0))
    )
    times = on_axis(window_times(data, window))
    shown = list(range(data.channels))[-MOST:]
    tail = min(data.context, 2 * data.horizon)
    for axis, channel in zip(axes, shown, strict=False):
        seen, unseen = times[data.context - tail : data.context], times[data.context :]
        axis.plot(seen, past[-tail:, channel], color=PAST, linewidth=0.9)
        axis.plot(unseen, truth[:, channel], color=PAST, linewidth=0.9, label="truth")
        axis.plot(unseen, forecast[:, channel], color=FORECAST, linewidth=1.3, label="forecast")
        axis.axvline(unseen[0], color="#999999", linewidth=0.7, linestyle=":")
        title(axis, data.prepared.panel.channels[channel])
        along_time(axis, times)
    handles, labels = axes[0].get_legend_handles_labels()  # beside the panels: it hides nothing
    figure.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=7, frameon=False)
    if data.channels > MOST:
        heading += f", the last {MOST} of {data.channels} channels"
    figure.suptitle(heading, fontsize=10)
    figure.savefig(path, dpi=130)


@plain_text()
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
    figure, axes = panels_of(2)
    when = steps / steps_per_epoch + 1
    axes[0].plot(when, [learning_rate * schedule.factor(p) for p in places], color=FORECAST)
    axes[1].plot(when, [schedule.momentum(p) for p in places], color=PAST)
    for axis, name in zip(axes, ("learning rate", "Adam's beta1"), strict=False):
        title(axis, name, along="epoch")
    figure.savefig(path, dpi=130)


def window_times(data: ForecastData, window: int) -> pd.Index:
    """Return the times of a test window, context and horizon; counted steps are integers."""
    panel, windows = data.prepared.panel, data.prepared.test
    series = int(windows.series_W[window])
    start = int(windows.starts_W[window]) - sum(panel.lengths[:series])
    times = panel.series[series].times[start : start + data.context + data.horizon]
    return panel.shown(times)
