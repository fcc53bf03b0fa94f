"""What a forecast is worth.

All scores here are means over windows, horizon steps and channels, so they do not depend on how the
windows were cut into batches. Sums are kept in float64 (float32 on Apple GPUs, which have no
float64).
"""

import torch
from torch import Tensor
from torchmetrics import Metric

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
