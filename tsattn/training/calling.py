"""From a batch of windows to a network's forecast, and what of it can be scored."""

from typing import Any

from torch import Tensor

from tsattn.data.windows import WindowBatch
from tsattn.models import Forecast, ForecastNetwork


def forecast_of(network: ForecastNetwork, batch: WindowBatch) -> Forecast:
    """Forecast a batch; a network is told only of what the batch has.

    Args:
        network: a network.
        batch: windows.
    """
    marks = batch.past_marks_BTM, batch.future_marks_BHM
    return network(batch.past_BTC, *marks, **batch.extras)


def mean_where_observed(loss: Any, forecast: Tensor, batch: WindowBatch) -> Tensor:
    """Return a loss over the targets that were observed; 0 where none was.

    Args:
        loss: maps forecast and target, whose leading axes agree, to a mean over all entries.
        forecast: forecasts, [B, H, C] or with further axes behind.
        batch: the windows.
    """
    observed_BHC = batch.observed_future_BHC
    if observed_BHC is None:
        return loss(forecast, batch.future_BHC)
    if not observed_BHC.any():
        return 0.0 * forecast.sum()
    return loss(forecast[observed_BHC], batch.future_BHC[observed_BHC])
