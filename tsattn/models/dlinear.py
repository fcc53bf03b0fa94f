"""DLinear: two linear maps, the baseline every network has to beat."""

from torch import Tensor
from torch.nn import functional as F

from tsattn.models.base import Forecast, ForecastNetwork
from tsattn.nn import ForecastHead
from tsattn.tensors import Context, ContextMarks, Covariates, HorizonMarks


class DLinear(ForecastNetwork):
    """Split a window into a moving average and the rest; map each linearly to the horizon.

    ``y = W_t trend(x) + b_t + W_s (x - trend(x)) + b_s``, where the trend is the centred moving
    average of ``kernel_size`` steps with both ends repeated.

    Args:
        channels: number of channels.
        context: steps of the window.
        horizon: steps to forecast.
        kernel_size: steps of the moving average, odd.
        individual: every channel has maps of its own.

    Raises:
        ValueError: an even kernel.

    Source: Zeng et al. 2023, "Are transformers effective for time series forecasting?", section 4.
    """

    uses_calendar = False

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        kernel_size: int = 25,
        individual: bool = False,
    ) -> None:
        super().__init__(channels, context, horizon)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.kernel_size = kernel_size
        self.trend = ForecastHead(context, horizon, channels, individual=individual)
        self.season = ForecastHead(context, horizon, channels, individual=individual)

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast every channel from its own window; calendar features are not used."""
        self.check_window(x_BTC)
        x_BCT = x_BTC.transpose(1, 2)
        trend = self._moving_average(x_BCT)
        return Forecast((self.trend(trend) + self.season(x_BCT - trend)).transpose(1, 2))

    def _moving_average(self, x_BCT: Tensor) -> Tensor:
        half = self.kernel_size // 2
        padded = F.pad(x_BCT, (half, half), mode="replicate")
        return F.avg_pool1d(padded, self.kernel_size, stride=1)
