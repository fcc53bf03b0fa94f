"""Long-horizon time-series forecasting with active attention.

The names below are loaded when they are first used, so that importing the package costs nothing.

Example:
    >>> from tsattn import PatchTST
    >>> network = PatchTST(channels=7, context=336, horizon=192, value_activation="tanh")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tsattn.forecast import Forecaster
    from tsattn.models import (
        DLinear,
        EncoderDecoderTransformer,
        Forecast,
        LastValue,
        PatchTST,
        SeasonalNaive,
        WindowMean,
    )
    from tsattn.ops import active_attention
    from tsattn.training import ForecastData, ForecastTask, load_network

__all__ = [
    "DLinear",
    "EncoderDecoderTransformer",
    "Forecast",
    "ForecastData",
    "ForecastTask",
    "Forecaster",
    "LastValue",
    "PatchTST",
    "SeasonalNaive",
    "WindowMean",
    "__version__",
    "active_attention",
    "load_network",
]

_HOMES = {
    "active_attention": "tsattn.ops",
    "ForecastData": "tsattn.training",
    "ForecastTask": "tsattn.training",
    "Forecaster": "tsattn.forecast",
    "load_network": "tsattn.training",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home; everything without one listed is a network's."""
    if name not in __all__:
        raise AttributeError(f"module 'tsattn' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "tsattn.models")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
