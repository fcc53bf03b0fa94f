"""What a data file becomes once it is read and checked: named channels over regular time."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from tsattn.data.catalog import DatasetInfo
from tsattn.data.integers import to_integers
from tsattn.data.reading import Layout
from tsattn.data.treatment import STRICT, UNTOUCHED, Treated, Treatment

Step = pd.Timedelta | pd.offsets.BaseOffset


@dataclass(frozen=True, eq=False)
class Series:
    """One run of rows over regular time.

    Attributes:
        id: The series' ``unique_id`` in the long layout, the dataset's name in the wide one.
        times: One timestamp per row, with the time zone where one is known.
        values_RC: float64, rows x channels, in original units, NaN where a value is missing.
    """

    id: str
    times: pd.DatetimeIndex
    values_RC: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.times)


@dataclass(frozen=True, eq=False)
class Panel:
    """A checked data file: one or many series with the same channels and the same step.

    Attributes:
        name: Catalog name, or the stem of the file.
        path: File that was read (``<frame>`` for a data frame).
        sha256: Hash of the file's bytes, or of the frame's content.
        channels: Channel names in the file's order.
        series: One series in the wide layout, one per ``unique_id`` in the long one.
        step: Distance of two rows; an offset where it is no fixed time (months, business days).
        step_seconds: The same in seconds; the mean where it is no fixed time.
        layout: ``wide`` or ``long``.
        time_column: Header of the time column.
        notes: What was recognised in the file, and whatever a reader should know about it.
        info: The catalog's row, where the dataset is one of the catalog.
        treatment: What may be done with missing values and irregular timestamps.
        treated: What was done.
        integers: Whether the time counts steps (`tsattn.data.integers`); it has no calendar then.
        clock: The clock that the timestamps go by (``Europe/Berlin``, ``UTC+01:00``), where one is
            known.
        by_utc: Whether steps of days and more go by UTC, in a zone whose clock is set.
    """

    name: str
    path: Path
    sha256: str
    channels: tuple[str, ...]
    series: tuple[Series, ...]
    step: Step
    step_seconds: float
    layout: Layout
    time_column: str
    notes: tuple[str, ...] = ()
    info: DatasetInfo | None = None
    treatment: Treatment = STRICT
    treated: Treated = UNTOUCHED
    integers: bool = False
    clock: str | None = None
    by_utc: bool = False

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return len(self.channels)

    @property
    def num_series(self) -> int:
        """Number of series."""
        return len(self.series)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of every series."""
        return tuple(series.num_rows for series in self.series)

    @property
    def num_rows(self) -> int:
        """Rows of all series together."""
        return sum(self.lengths)

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers of the series, in order."""
        return tuple(series.id for series in self.series)

    @cached_property
    def start(self) -> pd.Timestamp:
        """Earliest timestamp of all series."""
        return min(series.times[0] for series in self.series)

    @cached_property
    def end(self) -> pd.Timestamp:
        """Latest timestamp of all series."""
        return max(series.times[-1] for series in self.series)

    @property
    def span(self) -> str:
        """First and last time of all, as people know them."""
        first, last = self.shown(pd.DatetimeIndex([self.start, self.end]))
        return f"{first} to {last}"

    def shown(self, times: pd.DatetimeIndex) -> pd.Index:
        """Return times as people know them: steps that are counted are integers."""
        return pd.Index(to_integers(times)) if self.integers else times

    def with_series(self, series: tuple[Series, ...]) -> Self:
        """Return the same panel with other series."""
        return self if series == self.series else replace(self, series=series)
