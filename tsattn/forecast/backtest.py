"""Rolling evaluation: forecasts of rows that are known, and what they are worth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsattn.errors import ConfigError
from tsattn.forecast.engine import calendar_of, forecast_windows, require_finite, scaler_of
from tsattn.forecast.history import History
from tsattn.forecast.trained import Trained
from tsattn.metrics import SCORES, naive_error, point_scores
from tsattn.models import ForecastNetwork

UNITS = ("standardised", "original")
AXES = ("window", "channel", "step")
_ORDER = {"window": 0, "step": 1, "channel": 2}


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
    """

    names: tuple[str, ...]
    cutoffs_WK: np.ndarray
    forecast_WHK: dict[str, Tensor]
    truth_WHK: dict[str, Tensor]
    naive_WK: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    def scores(self, *by: str) -> pd.DataFrame:
        """Return MSE, MAE, MASE, WAPE and sMAPE (`tsattn.metrics.point_scores`), tidy.

        Args:
            by: what has a row of its own, some of ``window``, ``channel`` and ``step`` (``step`` 1
                is the first row after the cutoff); without names all of them, and ``total`` alone
                for one score over everything.

        Returns:
            One row per unit and group: ``unit``, a column for each name of ``by`` (for ``window``
            also its ``cutoff``, the latest where series end at different times), and the five
            scores, over the observed truth; NaN where a score is not defined. A mean over channels
            in original units mixes units where the channels do.

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
        return pd.DataFrame(columns | {name: scores[name].numpy() for name in SCORES})

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
    """
    scaler = scaler_of(history, trained)
    starts_W = torch.arange(windows) * step
    forecast = forecast_windows(
        network,
        scaler.standardise(history.values_KN.T),
        calendar_of(history, trained),
        trained,
        starts_W,
        together,
        fill=history.treatment.missing == "interpolate",
    )
    require_finite(forecast, history)
    original_NK = torch.from_numpy(np.ascontiguousarray(history.values_KN.T))
    rows_WL = starts_W.unsqueeze(1) + torch.arange(trained.context + trained.horizon)
    values_WLK = original_NK[rows_WL]
    truth, context = values_WLK[:, trained.context :], values_WLK[:, : trained.context]
    mean_K, scale_K = scaler.mean_SC[0], scaler.scale_SC[0]
    naive = naive_error(context, trained.season)
    cutoff_rows_KW = history.rows_KN[:, (starts_W + trained.context - 1).numpy()]
    moments = history.plain(history.times)
    return Backtest(
        names=history.names,
        cutoffs_WK=moments[cutoff_rows_KW.T],
        forecast_WHK={
            "standardised": forecast.double(),
            "original": forecast.double() * scale_K + mean_K,
        },
        truth_WHK={
            "standardised": ((truth - mean_K) / scale_K).float().double(),
            "original": truth,
        },
        naive_WK={"standardised": naive / scale_K, "original": naive},
        notes=history.notes,
    )
