"""Whom each expert serves: calendar and channels of the tokens of the test windows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsattn.data import Panel
from tsattn.models import ForecastNetwork
from tsattn.models.base import TokenPlaces
from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe import Experts, FeedForwardExperts, MixedExperts
from tsattn.training.calling import forecast_of
from tsattn.training.datamodule import ForecastData
from tsattn.training.routing import mixtures

MOST_TOKENS = 1 << 21
"""Tokens of a layer that are looked at; of longer tests, windows drawn at random."""

_DAY = 86_400.0
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class Calendar(NamedTuple):
    """A part of the calendar that rows fall into.

    Attributes:
        name: what it is, for example ``hour of the day``.
        labels: its values, in order.
        of_row_R: the number of the value that each row of the data has.
    """

    name: str
    labels: tuple[str, ...]
    of_row_R: Tensor


class Served(NamedTuple):
    """The slots of one layer.

    Attributes:
        layer: name of the mixture in the network.
        experts: names of its experts.
        calendar_VE: slots of each expert by calendar value, or None where there is no calendar, or
            the network does not say from which steps its tokens come.
        channels_CE: slots of each expert by channel, or None where tokens hold all channels.
    """

    layer: str
    experts: tuple[str, ...]
    calendar_VE: Tensor | None
    channels_CE: Tensor | None


class ServedTest(NamedTuple):
    """What the experts did with test windows.

    Attributes:
        windows: how many windows were looked at.
        calendar: the part of the calendar that was counted by; None where steps are counted.
        layers: a part for each mixture.
    """

    windows: int
    calendar: Calendar | None
    layers: list[Served]


def calendar_of(panel: Panel) -> Calendar | None:
    """Return the part of the calendar in which data of this step can be seen to repeat itself.

    Hours for steps below a day, weekdays up to a week, ISO weeks up to four weeks, else months;
    none where steps are counted.
    """
    if panel.integers:
        return None
    moments = [series.times for series in panel.series]
    if panel.step_seconds < _DAY:
        return _calendar("hour of the day", [f"{h:02}" for h in range(24)], moments, _hour)
    if panel.step_seconds < 7 * _DAY:
        return _calendar("day of the week", _DAYS, moments, _weekday)
    if panel.step_seconds < 28 * _DAY:
        weeks = [str(week) for week in range(1, 54)]
        return _calendar("week of the year", weeks, moments, _week)
    return _calendar("month of the year", _MONTHS, moments, _month)


def _calendar(
    name: str,
    labels: Sequence[str],
    moments: list[pd.DatetimeIndex],
    value: Callable[[pd.DatetimeIndex], object],
) -> Calendar:
    values = np.concatenate([np.asarray(value(times), dtype=np.int64) for times in moments])
    return Calendar(name, tuple(labels), torch.from_numpy(values))


def _hour(times: pd.DatetimeIndex) -> object:
    return times.hour


def _weekday(times: pd.DatetimeIndex) -> object:
    return times.day_of_week


def _week(times: pd.DatetimeIndex) -> object:
    return times.isocalendar().week.to_numpy(np.int64) - 1


def _month(times: pd.DatetimeIndex) -> object:
    return times.month - 1


def serve_test(network: ForecastNetwork, data: ForecastData) -> ServedTest:
    """Forecast the test windows, and count for whom each expert worked.

    Args:
        network: a trained network in evaluation mode.
        data: the data it was trained on.
    """
    windows, calendar = data.prepared.test, calendar_of(data.prepared.panel)
    layers = dict(mixtures(network))
    places = {name: network.token_places(name) for name in layers}
    counters = {
        name: _Counter(place, layers[name].num_experts, calendar, network.channels)
        for name, place in places.items()
        if place is not None
    }
    hooks = [layers[name].register_forward_hook(c.watch) for name, c in counters.items()]
    most = max((len(place.steps_L) for place in places.values() if place), default=1)
    index_W = _chosen(len(windows), most)
    try:
        with torch.inference_mode():
            for index_B in index_W.split(data.eval_batch_size):
                for counter in counters.values():
                    counter.rows_B = windows.starts_W[index_B]
                forecast_of(network, windows[index_B])
    finally:
        for hook in hooks:
            hook.remove()
    return ServedTest(
        len(index_W),
        calendar,
        [
            Served(
                name,
                expert_names(layer.experts),
                counters[name].calendar_VE if name in counters else None,
                counters[name].channels_CE if name in counters else None,
            )
            for name, layer in layers.items()
        ],
    )


class _Counter:
    """Counts the slots of one layer; ``rows_B`` says at which rows the next batch begins."""

    def __init__(
        self, places: TokenPlaces, num_experts: int, calendar: Calendar | None, channels: int
    ) -> None:
        self.places = places
        self.num_experts = num_experts
        self.calendar = calendar
        self.rows_B = torch.empty(0, dtype=torch.int64)
        self.calendar_VE = (
            None
            if calendar is None
            else torch.zeros(len(calendar.labels), num_experts, dtype=torch.int64)
        )
        self.channels_CE = (
            None
            if places.channels_L is None
            else torch.zeros(channels, num_experts, dtype=torch.int64)
        )

    def watch(self, module: nn.Module, inputs: object, output: Fed) -> None:
        """Count a batch."""
        steps_L, channels_L = self.places
        experts_BLK = output.routing.experts_NK.unflatten(0, (len(self.rows_B), len(steps_L)))
        if self.calendar is not None and self.calendar_VE is not None:
            values_BL = self.calendar.of_row_R[self.rows_B[:, None] + steps_L]
            _count(self.calendar_VE, values_BL, experts_BLK)
        if self.channels_CE is not None and channels_L is not None:
            _count(self.channels_CE, channels_L.expand(len(self.rows_B), -1), experts_BLK)


def _count(counts_VE: Tensor, values_BL: Tensor, experts_BLK: Tensor) -> None:
    pairs = values_BL[:, :, None] * counts_VE.shape[1] + experts_BLK
    counts_VE += pairs.flatten().bincount(minlength=counts_VE.numel()).view_as(counts_VE)


def _chosen(num_windows: int, tokens_per_window: int) -> Tensor:
    number = max(1, MOST_TOKENS // tokens_per_window)
    if number >= num_windows:
        return torch.arange(num_windows)
    drawn = torch.randperm(num_windows, generator=torch.Generator().manual_seed(0))
    return drawn[:number].sort().values


def expert_names(experts: Experts) -> tuple[str, ...]:
    """Return ``expert 0``, ``expert 1``, ..., with the kind of those that are no feed-forwards."""
    parts = list(experts.parts) if isinstance(experts, MixedExperts) else [experts]
    kinds = [
        "" if isinstance(part, FeedForwardExperts) else f" ({_kind(part)})"
        for part in parts
        if isinstance(part, Experts)
        for _ in range(part.num_experts)
    ]
    return tuple(f"expert {number}{kind}" for number, kind in enumerate(kinds))


def _kind(part: Experts) -> str:
    return type(part).__name__.removesuffix("Experts").lower()
