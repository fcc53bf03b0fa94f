"""Forecasting: from a checkpoint and a data frame to forecasts in original units, and their scores.

Nothing here imports Lightning, and no training data are needed: scaler, names, step and calendar
come from the checkpoint.
"""

from tsattn.forecast.forecaster import Forecaster
from tsattn.forecast.outlook import Outlook

__all__ = ["Forecaster", "Outlook"]
