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
    def times(self) -> tuple[pd.DatetimeIndex, ...]:
        """The horizon's timestamps of every name."""
        return tuple(self.calendar.future[which] for which in self.calendar.which_K)

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
        columns = [label for label in source.labels if label in means or label in (time, "")]
        ordered = [label if label in means else time for label in columns]
        return {
            label: means[label] if label in means else self.calendar.future[0] for label in ordered
        }

    def _long(self) -> dict[Any, Any]:
        history, calendar = self.history, self.calendar
        horizon = self.mean_KH.shape[1]
        moments_UH = np.stack([one.asi8 for one in calendar.future])
        zone = calendar.future[0].tz
        stamps = pd.DatetimeIndex(moments_UH[calendar.which_K].reshape(-1).view("datetime64[us]"))
        cells: dict[str, Any] = {
            "unique_id": pd.Index(list(history.labels)).repeat(horizon).to_numpy(),
            "ds": stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone),
            "y": self.mean_KH.reshape(-1),
        }
        source = history.source
        return {
            label: cells[name]
            for label, name in zip(source.labels, source.table.lowered, strict=True)
            if name in LONG_COLUMNS
        }
