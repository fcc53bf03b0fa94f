"""Rolling evaluation: forecasts of rows that are known, and what they are worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.errors import ConfigError, DataError
from tsattn.forecast.adaptive import adaptive_bands
from tsattn.forecast.covariates import covariates_of
from tsattn.forecast.engine import calendar_of, forecast_windows, require_finite, scaler_of
from tsattn.forecast.history import History
from tsattn.forecast.intervals import Ahead, Band, Intervals, Method
from tsattn.forecast.trained import Trained
from tsattn.metrics import SCORES, naive_error, point_scores
from tsattn.models import ForecastNetwork

UNITS = ("standardised", "original")
AXES = ("window", "channel", "step")
_ORDER = {"window": 0, "step": 1, "channel": 2}


@dataclass(frozen=True, eq=False)
class Asked:
    """The intervals to score.

    Attributes:
        levels: coverage in percent.
        method: how they are made.
        intervals: what the checkpoint has for them.
    """

    levels: tuple[float, ...]
    method: Method
    intervals: Intervals

    def bands(
        self,
        ahead: Ahead,
        truth_WHK: Tensor,
        step: int,
        names: tuple[str, ...],
        known: tuple[int | None, ...],
    ) -> dict[float, Band]:
        """Return standardised bands by level, of windows ``step`` rows apart."""
        if self.method != "adaptive":
            return self.intervals.bands(ahead, self.levels, self.method, names, known)
        return adaptive_bands(self.intervals, ahead, truth_WHK, step, self.levels, names, known)


@dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of known rows, beside the truth.

    Attributes:
        names: the channels, or the series of a long frame, in the frame's order.
        cutoffs_WK: the last timestamp that each window sees, windows x names.
        forecast_WHK: float64 forecasts by unit (`UNITS`), windows x horizon x names.
        truth_WHK: the truth, likewise, NaN where it was not observed.
        naive_WK: by unit, what the seasonal naive forecast errs within each window's context.
        notes: what was recognised in the source.
        bands: standardised intervals by level in percent; mostly none.
        scale_K: the names' deviation, by which a standardised width becomes one in original units.
        ahead: the forecasts as the network made them.
        known: the names' places among those trained on.
        step: rows between two windows.
    """

    names: tuple[str, ...]
    cutoffs_WK: np.ndarray
    forecast_WHK: dict[str, Tensor]
    truth_WHK: dict[str, Tensor]
    naive_WK: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    bands: Mapping[float, Band] = field(default_factory=dict)
    scale_K: Tensor | None = None
    ahead: Ahead | None = None
    known: tuple[int | None, ...] = ()
    step: int = 1

    def with_bands(self, asked: Asked) -> "Backtest":
        """Return the same forecasts with other intervals."""
        assert self.ahead is not None
        truth_WHK = self.truth_WHK["standardised"]
        bands = asked.bands(self.ahead, truth_WHK, self.step, self.names, self.known)
        return replace(self, bands=bands)

    def scores(self, *by: str) -> pd.DataFrame:
        """Return MSE, MAE, MASE, WAPE and sMAPE (`tsattn.metrics.point_scores`), tidy.

        Where levels were asked for, also ``coverage-80`` (the share of the truth within the
        interval, 0 to 1) and ``width-80`` (its mean width, in the unit) of each.

        Args:
            by: what has a row of its own, some of ``window``, ``channel`` and ``step`` (``step`` 1
                is the first row after the cutoff); without names all of them, and ``total`` alone
                for one score over everything.

        Returns:
            One row per unit and group: ``unit``, a column for each name of ``by`` (for ``window``
            also its ``cutoff``, the latest where series end at different times), the five scores,
            and two of every level, over the observed truth; NaN where a score is not defined. A
            mean over channels in original units mixes units where the channels do. A MASE over
            channels is that of the channels that have one.

        Raises:
            ConfigError: an unknown name.
        """
        kept = [axis for axis in AXES if axis in by or not by]
        unknown = sorted(set(by) - {*AXES, "total"})
        if unknown or ("total" in by and len(by) > 1):
            raise ConfigError(
                f"scores by {', '.join(by)}: expected some of {', '.join(AXES)}, or total alone"
            )
        return pd.concat([self._scores(unit, kept) for unit in UNITS], ignore_index=True)

    def _scores(self, unit: str, kept: list[str]) -> pd.DataFrame:
        forecast_WHK = self.forecast_WHK[unit]
        naive_WHK = self.naive_WK[unit].unsqueeze(1).expand_as(forecast_WHK)
        entries = (forecast_WHK, self.truth_WHK[unit], naive_WHK)
        scores = point_scores(*(self._grouped(one, kept) for one in entries))
        if "channel" not in kept and not self.has_mase.all():
            entries = (forecast_WHK, self._truth_of_mase(unit, kept), naive_WHK)
            scores["mase"] = point_scores(*(self._grouped(one, kept) for one in entries))["mase"]
        sizes = [forecast_WHK.shape[_ORDER[axis]] for axis in kept]
        places = [place.reshape(-1) for place in np.indices(sizes)] if kept else []
        columns: dict[str, object] = {"unit": np.repeat(unit, int(np.prod(sizes)))}
        for axis, place in zip(kept, places, strict=True):
            columns[axis] = np.array(self.names)[place] if axis == "channel" else place + 1
            if axis == "window" and "channel" in kept:
                channel = places[kept.index("channel")]
                columns["cutoff"] = pd.Index(self.cutoffs_WK[place, channel])
            elif axis == "window":
                columns["cutoff"] = pd.Index(self.cutoffs_WK.max(axis=1)[place])
        named = {name: scores[name].numpy() for name in SCORES}
        return pd.DataFrame(columns | named | self.band_scores(unit, kept))

    @property
    def has_mase(self) -> Tensor:
        """Where names have a MASE, windows x names, or nothing was observed that it would score."""
        unseen_WK = self.truth_WHK["original"].isnan().all(dim=1)
        return (self.naive_WK["original"] > 0) | unseen_WK

    def _truth_of_mase(self, unit: str, kept: list[str]) -> Tensor:
        """Return the truth of the channels that have a MASE in a whole group, else NaN."""
        has_WK, truth_WHK = self.has_mase, self.truth_WHK[unit]
        has_WK = has_WK if "window" in kept else has_WK.all(dim=0, keepdim=True)
        return torch.where(has_WK.unsqueeze(1), truth_WHK, torch.nan)

    def band_scores(self, unit: str, kept: list[str]) -> dict[str, np.ndarray]:
        """Return the columns ``coverage-80`` and ``width-80`` of every level, a row for each group.

        Coverage is that of the observed truth.

        Args:
            unit: one of `UNITS`, for the width.
            kept: axes that have rows of their own, in the order of `AXES`.
        """
        truth_WHK = self.truth_WHK["standardised"]
        scores: dict[str, np.ndarray] = {}
        for level, band in sorted(self.bands.items()):
            inside_WHK = (band.lower_WHK <= truth_WHK) & (truth_WHK <= band.upper_WHK)
            covered_WHK = torch.where(truth_WHK.isnan(), torch.nan, inside_WHK.double())
            width_WHK = band.upper_WHK - band.lower_WHK
            if unit == "original" and self.scale_K is not None:
                width_WHK = width_WHK * self.scale_K
            for name, values_WHK in (("coverage", covered_WHK), ("width", width_WHK)):
                grouped = self._grouped(values_WHK, kept).nanmean(0)
                scores[f"{name}-{level:.12g}"] = grouped.numpy()
        return scores

    def _grouped(self, values_WHK: Tensor, kept: list[str]) -> Tensor:
        """Return entries x groups, the groups in the order of the kept axes."""
        places = [_ORDER[axis] for axis in kept]
        others = [place for place in range(3) if place not in places]
        groups = int(np.prod([values_WHK.shape[place] for place in places]))
        return values_WHK.permute(*others, *places).reshape(-1, groups)


def evaluate(
    network: ForecastNetwork,
    history: History,
    trained: Trained,
    windows: int,
    step: int,
    together: tuple[int, ...] | None,
    asked: Asked | None = None,
) -> Backtest:
    """Forecast windows over the rows of a history and keep the truth beside them.

    Args:
        network: the network, of all channels or of one.
        history: exactly the rows of all windows.
        trained: what the network was trained on.
        windows: how many.
        step: rows between two.
        together: the names' places among the channels of a network that takes all of them, or None
            for a network of one channel.
        asked: intervals to score too.
    """
    scaler = scaler_of(history, trained)
    starts_W = torch.arange(windows) * step
    calendar = calendar_of(history, trained)
    ahead = forecast_windows(
        network,
        scaler.standardise(history.values_KN.T),
        calendar,
        trained,
        starts_W,
        together,
        covariates_of(history, calendar, trained, together),
        fill=history.treatment.missing == "interpolate",
    )
    return scored(ahead, history, trained, starts_W, asked)


def scored(
    ahead: Ahead, history: History, trained: Trained, starts_W: Tensor, asked: Asked | None
) -> Backtest:
    """Put the truth beside forecasts of windows.

    Args:
        ahead: the forecasts, standardised by the training's scaler.
        history: the rows of all windows.
        trained: what the network was trained on.
        starts_W: the first row of every window.
        asked: intervals to score too.
    """
    scaler, forecast = scaler_of(history, trained), ahead.mean_WHK
    require_finite(forecast, history)
    original_NK = torch.from_numpy(np.ascontiguousarray(history.values_KN.T))
    rows_WL = starts_W.unsqueeze(1) + torch.arange(trained.context + trained.horizon)
    values_WLK = original_NK[rows_WL]
    truth, context = values_WLK[:, trained.context :], values_WLK[:, : trained.context]
    mean_K, scale_K = scaler.mean_SC[0], scaler.scale_SC[0]
    naive = naive_error(context, trained.season)
    cutoff_rows_KW = history.rows_KN[:, (starts_W + trained.context - 1).numpy()]
    moments = history.plain(history.times)
    standardised = (_centred(truth, mean_K, scale_K) / scale_K).float().double()
    made = Backtest(
        names=history.names,
        cutoffs_WK=moments[cutoff_rows_KW.T],
        forecast_WHK={
            "standardised": forecast.double(),
            "original": forecast.double() * scale_K + mean_K,
        },
        truth_WHK={
            "standardised": standardised,
            "original": truth,
        },
        naive_WK={"standardised": naive / scale_K, "original": naive},
        notes=history.notes,
        scale_K=scale_K,
        ahead=ahead,
        known=history.known,
        step=int(starts_W[1]) if len(starts_W) > 1 else 1,
    )
    _require_scores(made, history)
    made = replace(made, notes=(*made.notes, *_undefined_notes(made)))
    return made.with_bands(asked) if asked else made


def _centred(truth_WHK: Tensor, mean_K: Tensor, scale_K: Tensor) -> Tensor:
    """Return truth less mean, without the rounding of a mean of equal values.

    What was constant in training has scale 1; as long as it stays what it was, it is 0 here.
    """
    apart_WHK = truth_WHK - mean_K
    rounding_WHK = (scale_K == 1) & (apart_WHK.abs() <= 1e-12 * mean_K.abs())
    return torch.where(rounding_WHK, 0.0, apart_WHK)


def _undefined_notes(made: Backtest) -> tuple[str, ...]:
    """Name what has no MASE and what a standardised sMAPE says nothing of, and what follows."""
    notes: list[str] = []
    has_K = made.has_mase.all(dim=0)
    if not has_K.all():
        total = "that of all is over the others" if has_K.any() else "there is none of all"
        notes.append(
            "constant, or hardly observed, in the context of a window: "
            f"{_listed(made.names, ~has_K)}; without a MASE, {total}"
        )
    truth_WHK = made.truth_WHK["standardised"]
    still_K = ((truth_WHK == 0) | truth_WHK.isnan()).flatten(0, 1).all(dim=0)
    if still_K.any():
        notes.append(
            f"constant since the training: {_listed(made.names, still_K)}; a standardised sMAPE of "
            "2 unless the forecast is exact, and that of all includes it"
        )
    return tuple(notes)


def _listed(names: tuple[str, ...], chosen_K: Tensor) -> str:
    return listed([names[place] for place in chosen_K.nonzero().flatten()], repr)


def _require_scores(made: Backtest, history: History) -> None:
    """Refuse numbers whose squared errors are beyond float64.

    Raises:
        DataError: with the names.
    """
    bad_K = torch.zeros(len(made.names), dtype=torch.bool)
    for unit in UNITS:
        error_WHK = (made.forecast_WHK[unit] - made.truth_WHK[unit]).square()
        bad_K |= error_WHK.isinf().flatten(0, 1).any(dim=0) | made.naive_WK[unit].isinf().any(dim=0)
    if bad_K.any():
        names = ", ".join(repr(made.names[place]) for place in bad_K.nonzero().flatten()[:5])
        raise DataError(
            f"{history.source.table.label}: no finite score for {names}: the values are too large "
            "to be squared; look at their unit"
        )
