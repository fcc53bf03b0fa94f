"""The rows before a window, as the file that a training before it reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tsattn.data.integers import to_integers
from tsattn.data.own import read_own_table
from tsattn.data.panel import Panel
from tsattn.data.table import Table
from tsattn.data.treatment import Treatment
from tsattn.data.zones import wall_time
from tsattn.errors import ConfigError
from tsattn.forecast.history import History
from tsattn.forecast.reading import long_columns, time_column_of
from tsattn.forecast.trained import Trained


@dataclass(frozen=True, eq=False)
class RefitRows:
    """All rows of a source, checked and mended as those of a training are.

    Attributes:
        panel: the rows; what was missing or irregular has been treated as the history was.
        trained: what the first network was trained on.
        zone: the time zone in which a training reads the timestamps, None where they are local.
    """

    panel: Panel
    trained: Trained
    zone: str | None

    @classmethod
    def of(cls, history: History, trained: Trained, *, sort: bool) -> "RefitRows":
        """Take the rows of a history's source, with the timestamps and the policy of that.

        Args:
            history: the rows of all windows, whose source has all rows.
            trained: what the first network was trained on.
            sort: order the rows of each series by time first.

        Raises:
            ConfigError: a source of another layout, or timestamps whose zone has no name.
            DataError: the rows cannot be trained on.
        """
        source = history.source
        if source.layout != trained.layout:
            raise ConfigError(
                f"refit=True: the network was trained on a {trained.layout} frame, this one is "
                f"{source.layout}; bring it into the same layout"
            )
        wide = source.layout == "wide"
        time = time_column_of(source, trained) if wide else long_columns(source.table)[1]
        reading = replace(
            source.reading,
            covariates=trained.beside,
            targets=trained.names if wide else (),
            layout=source.layout,
            time_column=source.table.columns[time] if wide else None,
            **asdict(history.treatment),
        )
        table = _timed(history, time, sort=sort)
        panel = read_own_table(table, reading, name="rows", path=Path("rows"), sha256="")
        return cls(panel, trained, _zone(panel))

    @property
    def settings(self) -> Mapping[str, object]:
        """Return what a training is told about the file, by the names of `ForecastData`."""
        return {
            "layout": self.trained.layout,
            "time_column": self._time_column if self.trained.layout == "wide" else "null",
            "delimiter": "null",
            "decimal": "null",
            "day_first": "null",
            "missing": self.panel.treatment.missing,
            "duplicates": "error",  # merged and inserted they are already
            "gaps": "error",
            "time_zone": self.zone or "null",
        }

    def before(self, held_back: int) -> pd.DataFrame:
        """Return all but the last rows of every series, series and channels as they were trained.

        Args:
            held_back: how many rows of each series are left out.
        """
        columns, panel = list(self.panel.channels), self.panel
        if self.trained.layout == "wide":
            (series,) = panel.series
            frame = pd.DataFrame(series.values_RC, columns=columns)
            frame = frame[[*self.trained.names, *self.trained.beside]]
            frame.insert(0, self._time_column, self._stamps(series.times))
            return frame.iloc[:-held_back]
        by_name = {series.id: series for series in panel.series}
        parts = [
            pd.DataFrame(
                {"unique_id": name, "ds": self._stamps(one.times), "y": one.values_RC[:, 0]}
                | {column: one.values_RC[:, place] for place, column in [*enumerate(columns)][1:]}
            )
            for name in self.trained.names
            if (one := by_name.get(name)) is not None
        ]
        return pd.concat([part.iloc[:-held_back] for part in parts], ignore_index=True)

    @property
    def _time_column(self) -> str:
        name = "date"
        while name in (*self.trained.names, *self.trained.beside):
            name += "_"
        return name

    def _stamps(self, times: pd.DatetimeIndex) -> pd.Index:
        """Return timestamps as a file tells them without doubt: in UTC where they have a zone."""
        if self.panel.integers:  # from 0 on, since numbers about 2000 are taken for years
            return pd.Index(to_integers(times) - to_integers(pd.DatetimeIndex([self.panel.start])))
        return times.tz_convert("UTC") if self.zone else wall_time(times)


def _timed(history: History, time: int, *, sort: bool) -> Table:
    """Return the table with the timestamps that the history has, in order where that was asked."""
    table = history.source.table
    times = history.times[: table.num_rows]
    frame = table.frame.copy(deep=False)
    frame[time] = times
    timed = replace(table, frame=frame)
    return timed.take(np.argsort(times.asi8, kind="stable")) if sort else timed


def _zone(panel: Panel) -> str | None:
    """Return the name of a panel's time zone, None for local times or one offset from UTC.

    Raises:
        ConfigError: a zone in which the clock is set, and that has no name.
    """
    zone = panel.series[0].times.tz
    if zone is None or panel.integers or zone.utcoffset(None) is not None:
        return None
    if panel.treatment.time_zone is not None:
        return panel.treatment.time_zone
    try:
        Treatment(time_zone=str(zone))
    except ConfigError as error:
        raise ConfigError(
            f"refit=True: the timestamps have the time zone {zone}, which a file cannot name; name "
            "it with --data.time_zone (Reading(time_zone=...)), such as Europe/Berlin"
        ) from error
    return str(zone)
