"""The last rows of every series of a source, matched by name with what a network was trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data.amounts import listed
from tsattn.data.integers import to_integers
from tsattn.data.treatment import STRICT, Treatment
from tsattn.data.zones import wall_time
from tsattn.errors import DataError
from tsattn.forecast.sources import Source
from tsattn.forecast.tails import Tails


@dataclass(frozen=True, eq=False)
class History:
    """The last rows of every name, a channel of a wide source or a series of a long one.

    Attributes:
        source: where they come from.
        labels: what the source calls the names: column labels, or values of ``unique_id``.
        names: the same as text.
        known: per name its place among those trained on, or None.
        values_KN: float64 in original units, names x rows, NaN where a value is missing.
        rows_KN: place of every row in ``times``.
        times: timestamps of all rows of the table, and behind them those of inserted rows.
        whole: all rows of every name, where new series need their scale from them; else empty.
        time_label: what the source calls its time column.
        notes: what was recognised and done.
        tails: the same rows, with those that were merged into them: one entry for all names of a
            wide source, one for each series of a long one.
        treatment: what may be done with missing values and irregular timestamps.
    """

    source: Source
    labels: tuple[Any, ...]
    names: tuple[str, ...]
    known: tuple[int | None, ...]
    values_KN: np.ndarray
    rows_KN: np.ndarray
    times: pd.DatetimeIndex
    whole: tuple[np.ndarray, ...]
    time_label: Any
    notes: tuple[str, ...]
    tails: Tails
    treatment: Treatment = STRICT

    def values(self, values_RF: np.ndarray) -> np.ndarray:
        """Return further columns [K, N, F] of the rows of every name, merged as theirs were.

        Args:
            values_RF: values of all rows of the table; only `Tails.needed` ones count.
        """
        merged = range(len(self.tails.rows_SN))
        values_SNF = np.stack([self.tails.values(place, values_RF) for place in merged])
        return np.repeat(values_SNF, len(self.names) // len(values_SNF), axis=0)

    def shown(self, times: pd.DatetimeIndex) -> pd.Index:
        """Return timestamps as the source writes them: in its zone, or as counted steps."""
        if self.source.table.integers:
            return pd.Index(to_integers(times))
        if times.tz is None:
            return times
        zone = self.source.zone
        return wall_time(times) if zone is None else times.tz_convert(zone)

    def plain(self, times: pd.DatetimeIndex) -> np.ndarray:
        """Return timestamps as the source writes them, for scores and pictures: without a zone."""
        shown = self.shown(times)
        return (wall_time(shown) if isinstance(shown, pd.DatetimeIndex) else shown).to_numpy()

    def require_something(self) -> None:
        """Refuse names without any value to interpolate between.

        Raises:
            DataError: with the names.
        """
        empty = np.flatnonzero(np.isnan(self.values_KN).all(axis=1))
        if len(empty) and self.treatment.missing == "interpolate":
            names = listed(list(empty), lambda place: repr(self.names[place]))
            raise DataError(
                f"{self.source.table.label}: no value of {names} among the last rows, so "
                "there is nothing to interpolate between; bring rows with values, remove the "
                "series, or set --data.missing mask"
            )

    def same_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows [U, N] of the distinct sequences of times, and which of them each name has.

        Names that share their timestamps, as all those of a wide source do, share the calendar.
        """
        moments_KN = self.times.asi8[self.rows_KN]
        if len(moments_KN) == 1 or (moments_KN == moments_KN[0]).all():
            return self.rows_KN[:1], np.zeros(len(moments_KN), dtype=np.int64)
        _, first_U, which_K = np.unique(moments_KN, axis=0, return_index=True, return_inverse=True)
        return self.rows_KN[first_U], which_K.reshape(-1)

    def require_same_times(self) -> None:
        """Refuse names that do not end at the same time, where a network sees them together.

        Raises:
            DataError: with two names and their last timestamps.
        """
        rows_UN, which_K = self.same_times()
        if len(rows_UN) > 1:
            other = int((which_K != which_K[0]).argmax())
            first, second = (
                f"{self.names[place]!r} at {self.times[self.rows_KN[place, -1]]}"
                for place in (0, other)
            )
            raise DataError(
                f"{self.source.table.label}: the network sees all channels together, but they end "
                f"at different times: {first}, {second}; bring rows up to the same time"
            )
