"""From rows in original units through a network and back, for any number of windows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.calendar import calendar_marks, future_times
from tsattn.data.covariates import RowCovariates
from tsattn.data.scaling import Scaler
from tsattn.data.steps import follows
from tsattn.data.windows import Windows, split_missing
from tsattn.data.zones import clocks
from tsattn.errors import CheckpointError, DataError
from tsattn.forecast.history import History
from tsattn.forecast.intervals import Ahead
from tsattn.forecast.trained import Trained
from tsattn.models import ForecastNetwork
from tsattn.training.calling import forecast_of

_VALUES = 1 << 21
"""Numbers of the windows that are forecast together, 8 MiB in float32."""


@dataclass(frozen=True, eq=False)
class NameCovariates:
    """Covariates of every name, standardised.

    Attributes:
        known_KRG: those known ahead, over the history and, where that is needed, the horizon.
        past_KNO: those known up to now, over the history.
        static_KA: what does not change.
    """

    known_KRG: Tensor
    past_KNO: Tensor
    static_KA: Tensor

    def rows(self, num_series: int, num_rows: int) -> RowCovariates:
        """Return those of the first names, the same number of rows of each under each other."""
        unknown = self.past_KNO.new_zeros(
            num_series, num_rows - self.past_KNO.shape[1], self.past_KNO.shape[2]
        )
        past_SRO = torch.cat([self.past_KNO[:num_series], unknown], dim=1)
        return RowCovariates(
            self.known_KRG[:num_series, :num_rows].flatten(0, 1),
            past_SRO.flatten(0, 1),
            self.static_KA[:num_series],
        )


@dataclass(frozen=True, eq=False)
class Calendar:
    """Timestamps of a history and of the horizon that follows it.

    Attributes:
        past: the rows' timestamps, for each distinct sequence of them.
        future: the timestamps that follow.
        which_K: which of them each name has.
    """

    past: tuple[pd.DatetimeIndex, ...]
    future: tuple[pd.DatetimeIndex, ...]
    which_K: np.ndarray

    def marks(self, features: tuple[str, ...]) -> Tensor:
        """Return calendar features [U, past and future rows, M]; of local time in a time zone."""
        if not features:
            return torch.empty(len(self.past), len(self.past[0]) + len(self.future[0]), 0)
        parts = [one for pair in zip(self.past, self.future, strict=True) for one in pair]
        first, *others = (one.tz_localize(None) for one in parts)
        marks_RM = calendar_marks(pd.DatetimeIndex(first.append(others)), features)
        return marks_RM.unflatten(0, (len(self.past), -1))


def calendar_of(history: History, trained: Trained) -> Calendar:
    """Return the timestamps of a history and of the horizon after its last row.

    Raises:
        DataError: the horizon lies beyond what a timestamp can be.
    """
    rows_UN, which_K = history.same_times()
    past = tuple(history.times[rows] for rows in rows_UN)
    try:
        future = tuple(
            future_times(
                one[-1],
                trained.step,
                trained.horizon,
                by_wall=_goes_by_wall(one, history, trained),
            ).as_unit("us")
            for one in past
        )
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise DataError(
            f"{history.source.table.label}: no time left to forecast: {error}"
        ) from None
    return Calendar(past, future, which_K)


def _goes_by_wall(times: pd.DatetimeIndex, history: History, trained: Trained) -> bool:
    """Return whether days, or longer steps, go on by the clock on the wall, and not in UTC.

    Rows may follow each other by both clocks, between two nights in which that on the wall is set.
    Then they go on as those of the training did, in UTC where that is known; where it is not, in
    UTC too where the source writes them so, as midnights.
    """
    if times.tz is None:
        return True
    in_utc, on_wall = clocks(times)
    if not follows(on_wall, trained.step):
        return False
    if trained.by_utc:
        return not follows(in_utc, trained.step)
    written = history.shown(times)
    return not (
        follows(in_utc, trained.step)
        and _midnights(in_utc)
        and not _midnights(on_wall)
        and isinstance(written, pd.DatetimeIndex)
        and written.tz is not None
        and written.tz_localize(None).equals(in_utc)
    )


def _midnights(times: pd.DatetimeIndex) -> bool:
    return bool((times == times.normalize()).all())


def scaler_of(history: History, trained: Trained) -> Scaler:
    """Return mean and deviation per name: those of the training, or of a new series' own rows."""
    new = [place for place, known in enumerate(history.known) if known is None]
    known = torch.tensor([place or 0 for place in history.known])
    mean_1K = trained.scaler.mean_SC[:, known]
    scale_1K = trained.scaler.scale_SC[:, known]
    if new:
        own = Scaler.fit([history.whole[place][:, np.newaxis] for place in new])
        mean_1K[:, new], scale_1K[:, new] = own.mean_SC.T, own.scale_SC.T
    return Scaler(mean_1K, scale_1K)


def forecast_windows(
    network: ForecastNetwork,
    values_RK: Tensor,
    calendar: Calendar,
    trained: Trained,
    starts_W: Tensor,
    together: tuple[int, ...] | None,
    covariates: NameCovariates | None = None,
    *,
    fill: bool = False,
) -> Ahead:
    """Return standardised forecasts of windows.

    Args:
        network: the network, of all channels or of one.
        values_RK: standardised rows of every name, NaN where a value is missing; those of the last
            horizon may be any numbers.
        calendar: timestamps of all rows.
        trained: what the network was trained on.
        starts_W: the first row of every window.
        together: the names' places among the channels of a network that takes all of them, or None
            for a network of one channel.
        covariates: of every name, over the rows, where the network takes any.
        fill: fill the gaps of every window from its own context, instead of telling the network
            where they are.
    """
    features = trained.calendar if network.uses_calendar else ()
    marks_URM = calendar.marks(features)[:, : len(values_RK)]
    if trained.integers:
        marks_URM = torch.zeros_like(marks_URM)
    if together is None:
        values_SRC = values_RK.T.unsqueeze(-1)
        marks_SRM = marks_URM[torch.from_numpy(calendar.which_K)]
    else:
        order = torch.tensor(together).argsort()
        values_SRC, marks_SRM = values_RK[:, order].unsqueeze(0), marks_URM
    num_series, num_rows = values_SRC.shape[:2]
    firsts_S = torch.arange(num_series) * num_rows
    values, observed = split_missing(values_SRC.flatten(0, 1))
    windows = Windows(
        values,
        marks_SRM.flatten(0, 1),
        (firsts_S.unsqueeze(1) + starts_W).flatten(),
        torch.arange(num_series).repeat_interleave(len(starts_W)),
        trained.context,
        trained.horizon,
        covariates.rows(num_series, num_rows) if covariates else None,
        observed,
        fill=fill,
    )

    def by_name(y_WHC: Tensor) -> Tensor:
        y_SWHC = y_WHC.unflatten(0, (num_series, len(starts_W)))
        if together is None:
            return y_SWHC.squeeze(3).movedim(0, 2)
        return y_SWHC[0][:, :, torch.tensor(together)]

    made = _run(network, windows)
    quantiles = made.quantiles_WHKQ
    return Ahead(by_name(made.mean_WHK), None if quantiles is None else by_name(quantiles))


def _run(network: ForecastNetwork, windows: Windows) -> Ahead:
    size = max(1, _VALUES // ((windows.context + windows.horizon) * network.channels))
    parts: list[Tensor] = []
    quantiles: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(windows), size):
            batch = windows[start : start + size]
            forecast = forecast_of(network, batch)
            parts.append(forecast.mean.float())
            if forecast.quantiles is not None:
                quantiles.append(forecast.quantiles.float())
    return Ahead(torch.cat(parts), torch.cat(quantiles) if quantiles else None)


def require_forecasts(network: ForecastNetwork, trained: Trained, source: str) -> None:
    """Forecast one window of zeros, so that a network that cannot is refused when it is loaded.

    Args:
        network: as its checkpoint's record describes it.
        trained: what it was trained on.
        source: what messages call the checkpoint.

    Raises:
        CheckpointError: the network fails, or its forecast is of another shape or not finite.
    """
    rows, channels = trained.context + trained.horizon, network.channels
    window = Windows(
        torch.zeros(rows, channels),
        torch.zeros(rows, len(trained.calendar) if network.uses_calendar else 0),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        trained.context,
        trained.horizon,
        _no_covariates(trained, rows),
    )
    try:
        y_1HC = _run(network, window).mean_WHK
    except Exception as error:  # a network that was tampered with can fail in any way
        raise CheckpointError(
            f"{source}: its network cannot forecast: {error}; take another checkpoint"
        ) from error
    if y_1HC.shape != (1, trained.horizon, channels) or not y_1HC.isfinite().all():
        raise CheckpointError(
            f"{source}: its network forecasts no finite numbers of [1, {trained.horizon}, "
            f"{channels}]; take another checkpoint"
        )


def _no_covariates(trained: Trained, rows: int) -> RowCovariates | None:
    if trained.covariates is None:
        return None
    names = trained.covariates.names
    return RowCovariates(
        known_RG=torch.zeros(rows, len(names.known) + len(names.calendar)),
        past_RO=torch.zeros(rows, len(names.past)),
        static_SA=torch.zeros(1, len(names.static)),
    )


def require_finite(forecast_WHK: Tensor, history: History) -> None:
    """Refuse forecasts that are no numbers.

    Raises:
        DataError: with the names.
    """
    finite_WHK = torch.isfinite(forecast_WHK)
    if finite_WHK.all():
        return
    bad = (~finite_WHK).flatten(0, 1).any(dim=0).nonzero().flatten().tolist()
    names = listed(bad, lambda place: repr(history.names[place]))
    raise DataError(
        f"{history.source.table.label}: no finite forecast for {names}: standardised by "
        "the training's mean and deviation, the values are beyond float32; look at their unit"
    )
