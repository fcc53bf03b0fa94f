"""The networks, one file each, and the table that names them in recipes and checkpoints."""

from collections.abc import Mapping
from types import MappingProxyType

from tsattn.models.base import Forecast, ForecastNetwork
from tsattn.models.dlinear import DLinear
from tsattn.models.naive import LastValue, SeasonalNaive, WindowMean
from tsattn.models.patchtst import PatchTST
from tsattn.models.transformer import EncoderDecoderTransformer

NETWORKS: Mapping[str, type[ForecastNetwork]] = MappingProxyType(
    {
        network.__name__: network
        for network in (
            PatchTST,
            EncoderDecoderTransformer,
            DLinear,
            LastValue,
            SeasonalNaive,
            WindowMean,
        )
    }
)
"""Every network by the name that recipes and checkpoints use; nothing else is ever looked up."""

__all__ = [
    "NETWORKS",
    "DLinear",
    "EncoderDecoderTransformer",
    "Forecast",
    "ForecastNetwork",
    "LastValue",
    "PatchTST",
    "SeasonalNaive",
    "WindowMean",
]
