"""Covariates: columns that help to forecast and are not forecast themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tsattn.data.amounts import quoted
from tsattn.data.calendar import FEATURES, calendar_marks
from tsattn.data.panel import Panel
from tsattn.data.scaling import Scaler
from tsattn.errors import DataError
from tsattn.tensors import CovariateSizes


class RowCovariates(NamedTuple):
    """Covariates of all rows, standardised; a kind that is missing has width 0.

    Attributes:
        known_RG: those that are known ahead.
        past_RO: those that are known up to now.
        static_SA: those of every series.
    """

    known_RG: Float[Tensor, "R G"]
    past_RO: Float[Tensor, "R O"]
    static_SA: Float[Tensor, "S A"]


@dataclass(frozen=True)
class CovariateNames:
    """Names of covariates by kind, in the order in which a network reads them.

    Attributes:
        known: columns whose values are known ahead, over the horizon too.
        calendar: calendar features (`tsattn.data.calendar.FEATURES`) that join them.
        past: columns that are known up to now.
        static: columns that are constant within each series.
    """

    known: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All that are columns of the data."""
        return (*self.known, *self.past, *self.static)

    @property
    def sizes(self) -> CovariateSizes:
        """How many there are of each kind."""
        return CovariateSizes(
            len(self.known) + len(self.calendar), len(self.past), len(self.static)
        )

    def __str__(self) -> str:
        kinds = {"known ahead": (*self.known, *self.calendar), "past": self.past}
        kinds["static"] = self.static
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)


@dataclass(frozen=True, eq=False)
class FittedCovariates:
    """Names of covariates and what standardises them, as fitted on the training rows.

    Mean and deviation are those of all series together, so that they also fit a series that was not
    trained on; those of static features are taken over series. Calendar features stay as they are.

    Attributes:
        names: the covariates.
        scaler: mean and deviation of ``names.columns``, one row.
    """

    names: CovariateNames
    scaler: Scaler

    def known(
        self, values_RK: np.ndarray, times: pd.DatetimeIndex | None = None
    ) -> Float[Tensor, "R G"]:
        """Standardise rows of the columns known ahead, and add their calendar features.

        Args:
            values_RK: rows in original units.
            times: their timestamps; None leaves calendar features out.
        """
        rows = self._part(0, len(self.names.known)).standardise(values_RK)
        if times is None or not self.names.calendar:
            return rows
        return torch.cat([rows, calendar_marks(times, self.names.calendar)], dim=1)

    def past(self, values_RO: np.ndarray) -> Float[Tensor, "R O"]:
        """Standardise rows of the past covariates."""
        first = len(self.names.known)
        return self._part(first, first + len(self.names.past)).standardise(values_RO)

    def static(self, values_SA: np.ndarray) -> Float[Tensor, "S A"]:
        """Standardise the static features of series."""
        return self._part(len(self.names.columns) - len(self.names.static), None).standardise(
            values_SA
        )

    def record(self) -> dict[str, Any]:
        """Return this in plain values and tensors."""
        names = {kind: list(chosen) for kind, chosen in vars(self.names).items()}
        mean, scale = self.scaler.mean_SC, self.scaler.scale_SC
        return {"covariates": names, "covariates_mean": mean, "covariates_scale": scale}

    def _part(self, start: int, stop: int | None) -> Scaler:
        return Scaler(self.scaler.mean_SC[:, start:stop], self.scaler.scale_SC[:, start:stop])


def recorded_covariates(data: Mapping[str, Any]) -> FittedCovariates | None:
    """Return what `FittedCovariates.record` put into a checkpoint; None where there is nothing.

    Raises:
        ValueError: the record contradicts itself.
    """
    if not data.get("covariates"):
        return None
    lists = {kind: tuple(map(str, data["covariates"][kind])) for kind in vars(CovariateNames())}
    names = CovariateNames(**lists)
    scaler = Scaler(
        data["covariates_mean"].double().reshape(1, -1),
        data["covariates_scale"].double().reshape(1, -1),
    )
    width = len(names.columns)
    sound = torch.isfinite(scaler.mean_SC).all() and torch.isfinite(scaler.scale_SC).all()
    if not sound or not (scaler.scale_SC > 0).all():
        raise ValueError("the covariates' deviations are not finite and positive")
    if (scaler.mean_SC.shape[1], scaler.scale_SC.shape[1]) != (width, width):
        raise ValueError(f"there are {width} covariates and a scaler of another width")
    if len(set(names.columns)) < width or not set(names.calendar) <= set(FEATURES):
        raise ValueError("covariates repeat, or are unknown calendar features")
    return FittedCovariates(names, scaler)


def name_covariates(
    panel: Panel, known_future: Sequence[str], past: Sequence[str], static: Sequence[str]
) -> CovariateNames:
    """Find covariates among a panel's columns; known ones may also be calendar features.

    Args:
        panel: the data, covariates still among the channels.
        known_future: columns or calendar features that are known ahead; a column comes first.
        past: columns that are known up to now.
        static: columns that are constant within each series of the long layout.

    Raises:
        DataError: a name that is not there or is given twice, static features in a wide layout, or
            nothing left to forecast.
    """
    given = [*known_future, *past, *static]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise DataError(
            f"{quoted(twice)} named as covariate twice; a column is one of --data.known_future, "
            "--data.past and --data.static"
        )
    columns = set(panel.channels)
    calendar = tuple(one for one in known_future if one not in columns and one in FEATURES)
    if calendar and panel.integers:
        raise DataError(
            f"{panel.name}: the time counts steps and has no calendar, so {quoted(calendar)} "
            "cannot be known ahead; leave calendar features out of --data.known_future, or bring "
            "timestamps"
        )
    missing = [name for name in given if name not in columns and name not in calendar]
    if missing:
        raise DataError(_missing(panel, missing))
    if static and panel.layout == "wide":
        raise DataError(
            f"{panel.name}: static features ({quoted(static)}) tell series apart, and a wide "
            "layout is one series; bring the long layout: unique_id, ds, y, and a column for "
            "each feature that is constant within each unique_id"
        )
    targets = panel.channels[:1] if panel.layout == "long" else panel.channels
    if not set(targets) - set(given):
        raise DataError(
            f"{panel.name}: {quoted(given)} are covariates, so nothing is left to forecast; leave "
            f"out what shall be forecast{' (y)' if panel.layout == 'long' else ''}"
        )
    known = tuple(one for one in known_future if one in columns)
    return CovariateNames(known, calendar, tuple(past), tuple(static))


@dataclass(frozen=True, eq=False)
class PanelCovariates:
    """Covariates of a panel in original units.

    Attributes:
        names: the covariates.
        rows: for every series its rows of ``names.known`` and ``names.past``.
        static_SA: of every series.
    """

    names: CovariateNames
    rows: tuple[np.ndarray, ...]
    static_SA: np.ndarray

    def fit(self, training: Sequence[tuple[int, int]]) -> FittedCovariates:
        """Fit mean and deviation on the training rows of all series.

        Args:
            training: for every series its first training row and the one after the last.
        """
        pairs = zip(self.rows, training, strict=True)
        rows_RF = np.concatenate([rows[slice(*part)] for rows, part in pairs])
        scalers = [Scaler.fit([one]) for one in (rows_RF, self.static_SA) if one.shape[1]]
        none = torch.empty(1, 0, dtype=torch.float64)
        mean = torch.cat([none, *(one.mean_SC for one in scalers)], dim=1)
        scale = torch.cat([none, *(one.scale_SC for one in scalers)], dim=1)
        return FittedCovariates(self.names, Scaler(mean, scale))

    def standardised(self, fitted: FittedCovariates, times: pd.DatetimeIndex) -> RowCovariates:
        """Return all rows, standardised.

        Args:
            fitted: what standardises them.
            times: timestamps of the rows of all series.
        """
        rows_RF, known = np.concatenate(self.rows), len(self.names.known)
        return RowCovariates(
            fitted.known(rows_RF[:, :known], times),
            fitted.past(rows_RF[:, known:]),
            fitted.static(self.static_SA),
        )


def split_covariates(panel: Panel, names: CovariateNames) -> tuple[Panel, PanelCovariates]:
    """Take covariates out of a panel's channels.

    Raises:
        DataError: a value that is no number, or a static feature that changes within its series.
    """
    places = {name: place for place, name in enumerate(panel.channels)}
    temporal = [places[name] for name in (*names.known, *names.past)]
    static = [places[name] for name in names.static]
    kept = [place for name, place in places.items() if name not in names.columns]
    for one in panel.series:
        _require_numbers(panel, one.id, one.values_RC, [*temporal, *static])
        changing = [name for name in names.static if np.ptp(one.values_RC[:, places[name]])]
        if changing:
            raise DataError(
                f"{panel.name}: static {quoted(changing)} changes within series {one.id!r}; what "
                "changes with time belongs to --data.known_future or --data.past"
            )
    series = tuple(replace(one, values_RC=one.values_RC[:, kept]) for one in panel.series)
    channels = tuple(panel.channels[place] for place in kept)
    return replace(panel, channels=channels, series=series), PanelCovariates(
        names,
        tuple(one.values_RC[:, temporal] for one in panel.series),
        np.stack([one.values_RC[0, static] for one in panel.series]),
    )


def _require_numbers(panel: Panel, series: str, values_RC: np.ndarray, columns: list[int]) -> None:
    bad = np.argwhere(~np.isfinite(values_RC[:, columns]))
    if len(bad):
        row, place = bad[0]
        raise DataError(
            f"{panel.name}: covariate {panel.channels[columns[place]]!r} has no finite number in "
            f"row {row} of series {series!r} ({len(bad)} cells in all); covariates must be whole: "
            "fill them, or leave the column out"
        )


def _missing(panel: Panel, missing: Sequence[str]) -> str:
    known = (*panel.channels, *FEATURES)
    near = get_close_matches(missing[0], known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    if panel.layout == "long" and missing[0].casefold() in ("unique_id", "ds"):
        hint = " (it names the series or the time)"
    if missing[0] == panel.time_column:
        hint = " (it is the time)"
    return (
        f"{panel.name}: no column {quoted(missing)} for a covariate{hint}; the columns are "
        f"{quoted(panel.channels)}, and --data.known_future also takes the calendar features "
        f"{', '.join(FEATURES)}"
    )
