"""A forecast with its history, and the frame it becomes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.own import LONG_COLUMNS
from tsattn.forecast.engine import Calendar
from tsattn.forecast.history import History


@dataclass(frozen=True, eq=False)
class Outlook:
    """Point forecasts of every name of a source.

    Attributes:
        history: the rows that were looked at, and what the source calls things.
        calendar: their timestamps, and those of the horizon.
        mean_KH: float64 forecasts in original units, names x horizon.
    """

    history: History
    calendar: Calendar
    mean_KH: np.ndarray

    @property
    def times(self) -> tuple[pd.Index, ...]:
        """The horizon's timestamps of every name, as the source writes them."""
        future = [self.history.shown(one) for one in self.calendar.future]
        return tuple(future[which] for which in self.calendar.which_K)

    def frame(self) -> Any:
        """Return a frame of the source's own library and shape, the horizon's rows only.

        Wide: the source's time column and channels, in its order of columns. Long: ``unique_id``,
        ``ds`` and ``y`` (as the source writes them), series by series.
        """
        source = self.history.source
        return source.frame(self._wide() if source.layout == "wide" else self._long())

    def _wide(self) -> dict[Any, Any]:
        history = self.history
        source, time = history.source, history.time_label
        means = dict(zip(history.labels, self.mean_KH, strict=True))
        ordered = [label if label in means else time for label in source.labels]
        return {
            label: means[label] if label in means else history.shown(self.calendar.future[0])
            for label in ordered
        }

    def _long(self) -> dict[Any, Any]:
        history, calendar = self.history, self.calendar
        horizon = self.mean_KH.shape[1]
        future = [history.shown(one) for one in calendar.future]
        stamps = future[0].append(future[1:])
        rows_UH = np.arange(len(stamps)).reshape(-1, horizon)
        cells: dict[str, Any] = {
            "unique_id": pd.Index(list(history.labels)).repeat(horizon).to_numpy(),
            "ds": stamps[rows_UH[calendar.which_K].reshape(-1)],
            "y": self.mean_KH.reshape(-1),
        }
        source = history.source
        return {
            label: cells[name]
            for label, name in zip(source.labels, source.table.lowered, strict=True)
            if name in LONG_COLUMNS
        }
