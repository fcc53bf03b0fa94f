"""The floors: forecasts without a parameter, below which no network is worth its electricity."""

import torch

from tsattn.models.base import Forecast, ForecastNetwork
from tsattn.tensors import Context, ContextMarks, Covariates, HorizonMarks


class LastValue(ForecastNetwork):
    """Repeat the last value of the window: ``y_h = x_T``."""

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast the last value."""
        self.check_window(x_BTC)
        return Forecast(x_BTC[:, -1:].expand(-1, self.horizon, -1))


class SeasonalNaive(ForecastNetwork):
    """Repeat the last season of the window: ``y_h = x_{T - season + (h - 1) mod season + 1}``.

    Args:
        channels: number of channels.
        context: steps of the window.
        horizon: steps to forecast.
        season: steps of a season, at most ``context``.

    Raises:
        ValueError: a season that is not within 1..context.
    """

    def __init__(self, channels: int, context: int, horizon: int, *, season: int = 24) -> None:
        super().__init__(channels, context, horizon)
        if not 1 <= season <= context:
            raise ValueError(f"season must be within 1..context {context}, got {season}")
        self.season = season

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast the values one season earlier."""
        self.check_window(x_BTC)
        step = torch.arange(self.horizon, device=x_BTC.device) % self.season
        return Forecast(x_BTC[:, self.context - self.season + step])


class WindowMean(ForecastNetwork):
    """Repeat the mean of the window: ``y_h = mean(x)``."""

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast the mean."""
        self.check_window(x_BTC)
        return Forecast(x_BTC.mean(dim=1, keepdim=True).expand(-1, self.horizon, -1))
