"""Standardisation per series and channel, fitted on training rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and deviation of every series and channel: ``standardised = (value - mean) / scale``.

    Attributes:
        mean_SC: float64, series x channels.
        scale_SC: float64 population standard deviation (ddof 0), 1 where a channel is constant.
    """

    mean_SC: Float[Tensor, "S C"]
    scale_SC: Float[Tensor, "S C"]

    @classmethod
    def fit(cls, train_rows: Sequence[np.ndarray]) -> "Scaler":
        """Fit on the training rows of every series.

        A channel that is constant up to rounding gets scale 1, so nothing is divided by zero.
        Missing values (NaN) are left out; a channel must have one value at least.

        Args:
            train_rows: Per series, an array of training rows x channels in original units.
        """
        from sklearn.preprocessing import StandardScaler  # slow to import, needed only here

        fitted = [StandardScaler().fit(rows) for rows in train_rows]
        return cls(
            mean_SC=torch.from_numpy(np.stack([np.asarray(scaler.mean_) for scaler in fitted])),
            scale_SC=torch.from_numpy(np.stack([np.asarray(scaler.scale_) for scaler in fitted])),
        )

    def standardise(self, values_RC: np.ndarray, series: int = 0) -> Float[Tensor, "R C"]:
        """Standardise rows of one series.

        Args:
            values_RC: Rows in original units.
            series: Which series' mean and scale to use.

        Returns:
            float32 rows; the arithmetic is float64.
        """
        values = torch.from_numpy(np.ascontiguousarray(values_RC, dtype=np.float64))
        return ((values - self.mean_SC[series]) / self.scale_SC[series]).float()

    def to_original(
        self, values_WHC: Float[Tensor, "W H C"], series_W: Int[Tensor, " W"]
    ) -> Float[Tensor, "W H C"]:
        """Undo `standardise` for windows of several series.

        Args:
            values_WHC: Standardised windows.
            series_W: Series of every window.

        Returns:
            float64 windows in original units, on the CPU.
        """
        series = series_W.cpu()
        values = values_WHC.detach().cpu().double()
        return values * self.scale_SC[series].unsqueeze(1) + self.mean_SC[series].unsqueeze(1)
