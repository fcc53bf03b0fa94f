"""What a forecast is worth.

All scores here are means over windows, horizon steps and channels, so they do not depend on how the
windows were cut into batches. Sums are kept in float64 (float32 on Apple GPUs, which have no
float64).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from tsattn.tensors import Horizon, Index

_SUM = torch.float32 if torch.backends.mps.is_available() else torch.float64


class WindowErrors(Metric):
    """Mean squared and mean absolute error over a set of windows.

    ``MSE = mean((y - f)^2)``, ``MAE = mean(|y - f|)``, both in [0, inf), over windows, steps and
    channels. Beside all windows it scores those with an index below ``first``, which is how
    published code that drops its last incomplete batch scores.

    Args:
        channels: number of channels.
        first: the windows with an index below this also count for the second score.
        sync_on_compute: whether several processes put their windows together, each having scored
            some; off where every process has scored all of them.

    Source: PROTOCOL of the published PatchTST code for the second score.
    """

    full_state_update = False
    squared: Tensor
    absolute: Tensor
    squared_first: Tensor
    absolute_first: Tensor
    windows: Tensor
    windows_first: Tensor

    def __init__(self, channels: int, first: int = 0, *, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.first = first
        for name in ("squared", "absolute", "squared_first", "absolute_first"):
            self.add_state(name, default=torch.zeros(channels, dtype=_SUM), dist_reduce_fx="sum")
        for name in ("windows", "windows_first"):
            self.add_state(name, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(_SUM)

    def update(self, forecast_BHC: Horizon, target_BHC: Horizon, index_B: Index) -> None:
        """Add a batch of windows."""
        wide = torch.promote_types(forecast_BHC.dtype, torch.float32)
        error_BHC = forecast_BHC.detach().to(wide) - target_BHC.to(wide)
        squared_BC = error_BHC.square().mean(dim=1).to(_SUM)
        absolute_BC = error_BHC.abs().mean(dim=1).to(_SUM)
        first_B = index_B < self.first
        self.squared += squared_BC.sum(0)
        self.absolute += absolute_BC.sum(0)
        self.squared_first += squared_BC[first_B].sum(0)
        self.absolute_first += absolute_BC[first_B].sum(0)
        self.windows += len(index_B)
        self.windows_first += first_B.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``mse``, ``mae``, ``per_channel_mse``, ``windows`` and the same ``*_first``."""
        return {
            "mse": (self.squared / self.windows).mean(),
            "mae": (self.absolute / self.windows).mean(),
            "per_channel_mse": self.squared / self.windows,
            "windows": self.windows,
            "mse_first": (self.squared_first / self.windows_first).mean(),
            "mae_first": (self.absolute_first / self.windows_first).mean(),
            "windows_first": self.windows_first,
        }


def pinball(forecast: Tensor, target: Tensor, level: Tensor | float) -> Tensor:
    """Return ``max(q (y - f), (q - 1)(y - f))``, in [0, inf), of every entry; shapes broadcast.

    Its mean is smallest where ``f`` is the quantile ``q``.

    Args:
        forecast: ``f``.
        target: the truth ``y``.
        level: ``q`` in (0, 1).

    Source: Koenker and Bassett 1978.
    """
    error = target - forecast
    return torch.maximum(level * error, (level - 1) * error)


class QuantileErrors(Metric):
    """Pinball loss, and how often the truth lies below each quantile and between two.

    Args:
        levels: levels of the quantiles, increasing.
        pairs: places of the quantiles that are the ends of an interval.
    """

    full_state_update = False
    loss: Tensor
    below: Tensor
    strictly_below: Tensor
    total: Tensor
    entries: Tensor

    def __init__(self, levels: Sequence[float], pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.pairs = tuple(pairs)
        for name in ("loss", "below", "strictly_below", "total"):
            self.add_state(name, default=torch.zeros(len(levels), dtype=_SUM), dist_reduce_fx="sum")
        self.add_state("entries", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(_SUM)

    def update(self, quantiles_BHCQ: Tensor, target_BHC: Horizon) -> None:
        """Add a batch of windows."""
        forecast_NQ = quantiles_BHCQ.detach().flatten(0, -2).float()
        target_N1 = target_BHC.float().reshape(-1, 1)
        levels_Q = forecast_NQ.new_tensor(self.levels)
        self.loss += pinball(forecast_NQ, target_N1, levels_Q).sum(0, dtype=_SUM)
        self.below += (target_N1 <= forecast_NQ).sum(0)
        self.strictly_below += (target_N1 < forecast_NQ).sum(0)
        self.total += forecast_NQ.sum(0, dtype=_SUM)
        self.entries += len(forecast_NQ)

    def compute(self) -> dict[str, Any]:
        """Return ``loss``, ``share_below`` and, of every pair, ``coverage`` and mean ``width``."""
        below, strictly = self.below / self.entries, self.strictly_below / self.entries
        means = self.total / self.entries
        return {
            "levels": list(self.levels),
            "loss": (self.loss / self.entries).mean().item(),
            "share_below": below.tolist(),
            "intervals": [
                {
                    "level": round(100 * (self.levels[high] - self.levels[low]), 7),
                    "coverage": (below[high] - strictly[low]).item(),
                    "width": (means[high] - means[low]).item(),
                }
                for low, high in self.pairs
            ],
        }


SCORES = ("mse", "mae", "mase", "wape", "smape")
"""The names of `point_scores`, in the order in which tables have them."""


def point_scores(forecast_NG: Tensor, target_NG: Tensor, naive_NG: Tensor) -> dict[str, Tensor]:
    """Score groups of forecasts ``f`` against the truth ``y``, by five measures.

    * ``mse = mean((y - f)^2)``, in [0, inf), in the unit squared
    * ``mae = mean(|y - f|)``, in [0, inf), in the unit
    * ``mase = mean(|y - f| / q)``, in [0, inf), below 1 where the forecast errs less than the
      seasonal naive one did before it; ``q`` is that one's mean absolute error (`naive_error`)
    * ``wape = sum(|y - f|) / sum(|y|)``, in [0, inf)
    * ``smape = mean(2 |y - f| / (|y| + |f|))``, in [0, 2], 0 where both are 0

    A score that would divide by zero is NaN: the group's ``mase`` where one of its ``q`` is 0, its
    ``wape`` where all its ``y`` are.

    Args:
        forecast_NG: forecasts, entries x groups.
        target_NG: the truth.
        naive_NG: ``q`` of every entry.

    Returns:
        The scores by name, one per group.

    Source: Hyndman and Koehler 2006 for MASE; Makridakis 1993 for sMAPE.
    """
    groups = forecast_NG.shape[1]
    error_NG = (forecast_NG - target_NG).abs()
    size_NG = forecast_NG.abs() + target_NG.abs()
    undefined = torch.full_like(naive_NG, torch.nan)
    total_G = target_NG.abs().sum(0)
    return {
        "mse": mean_squared_error(forecast_NG, target_NG, num_outputs=groups).reshape(-1),
        "mae": mean_absolute_error(forecast_NG, target_NG, num_outputs=groups).reshape(-1),
        "mase": (error_NG / torch.where(naive_NG > 0, naive_NG, undefined)).mean(0),
        "wape": error_NG.sum(0) / torch.where(total_G > 0, total_G, undefined[0]),
        "smape": (2 * error_NG / torch.where(size_NG > 0, size_NG, 1.0)).mean(0),
    }


def naive_error(context_WTK: Tensor, season: int) -> Tensor:
    """Return what the seasonal naive forecast errs within each window's context, [W, K].

    ``q = mean_t |x_t - x_{t - season}|``, by the last value (season 1) where a season does not fit
    into the context, and NaN for a context of one step.

    Args:
        context_WTK: contexts, windows x steps x series.
        season: steps of a season.

    Source: Hyndman and Koehler 2006, with the context for the sample.
    """
    lag = season if season < context_WTK.shape[1] else 1
    return (context_WTK[:, lag:] - context_WTK[:, :-lag]).abs().mean(1)
