"""A forecast with its history, and the frame it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.frames import LONG_COLUMNS
from tsattn.errors import DataError
from tsattn.forecast.engine import Calendar
from tsattn.forecast.history import History
from tsattn.forecast.intervals import Band


@dataclass(frozen=True, eq=False)
class Outlook:
    """Forecasts of every name of a source, with their intervals.

    Attributes:
        history: the rows that were looked at, and what the source calls things.
        calendar: their timestamps, and those of the horizon.
        mean_KH: float64 forecasts in original units, names x horizon.
        bands: intervals in original units by level, each of one window.
    """

    history: History
    calendar: Calendar
    mean_KH: np.ndarray
    bands: Mapping[float, Band] = field(default_factory=dict)

    @property
    def times(self) -> tuple[pd.Index, ...]:
        """The horizon's timestamps of every name, as the source writes them."""
        future = [self.history.shown(one) for one in self.calendar.future]
        return tuple(future[which] for which in self.calendar.which_K)

    def frame(self) -> Any:
        """Return a frame of the source's own library and shape, the horizon's rows only.

        Wide: the source's time column and channels, in its order of columns. Long: ``unique_id``,
        ``ds`` and ``y`` (as the source writes them), series by series. After a channel, or ``y``,
        the ends of its intervals from the lowest to the highest (``-lo-95 -lo-80 -hi-80 -hi-95``).

        Raises:
            DataError: the source has a column of such a name itself.
        """
        source = self.history.source
        return source.frame(self._wide() if source.layout == "wide" else self._long())

    def _wide(self) -> dict[Any, Any]:
        history = self.history
        source, time = history.source, history.time_label
        means = dict(zip(history.labels, self.mean_KH, strict=True))
        ends = self._ends()
        columns: dict[Any, Any] = {}
        for label in source.labels:
            if label not in means:
                if label in (time, ""):  # the others are covariates
                    columns[time] = history.shown(self.calendar.future[0])
                continue
            columns[label] = means[label]
            place = history.labels.index(label)
            for suffix, end_KH in ends.items():
                columns[self._free(f"{label}{suffix}")] = end_KH[place]
        return columns

    def _long(self) -> dict[Any, Any]:
        history, calendar = self.history, self.calendar
        horizon = self.mean_KH.shape[1]
        future = [history.shown(one) for one in calendar.future]
        stamps = future[0].append(future[1:])
        rows_UH = np.arange(len(stamps)).reshape(-1, horizon)
        cells: dict[str, Any] = {
            "unique_id": pd.Index(list(history.labels)).repeat(horizon),
            "ds": stamps[rows_UH[calendar.which_K].reshape(-1)],
            "y": self.mean_KH.reshape(-1),
        }
        source = history.source
        columns: dict[Any, Any] = {}
        for label, name in zip(source.labels, source.table.lowered, strict=True):
            if name in LONG_COLUMNS:
                columns[label] = cells[name]
            for suffix, end_KH in self._ends().items() if name == "y" else ():
                columns[self._free(f"{label}{suffix}")] = end_KH.reshape(-1)
        return columns

    def _ends(self) -> dict[str, np.ndarray]:
        """Return the ends of all intervals, names x horizon, by the suffix of their columns."""
        widest = sorted(self.bands, reverse=True)
        lower = {f"-lo-{level:.12g}": self.bands[level].lower_WHK for level in widest}
        upper = {f"-hi-{level:.12g}": self.bands[level].upper_WHK for level in reversed(widest)}
        return {suffix: end[0].T.numpy() for suffix, end in (lower | upper).items()}

    def _free(self, label: str) -> str:
        source = self.history.source
        if label in source.labels:
            raise DataError(
                f"{source.table.label}: has a column {label!r}, which is what the end of an "
                "interval is called; rename it, or leave levels out"
            )
        return label
