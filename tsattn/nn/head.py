"""From tokens to the horizon."""

import math

import torch
from torch import Tensor, nn

from tsattn.nn.dropout import Dropout


class ForecastHead(nn.Module):
    """One linear map from all features of a channel to its horizon.

    Args:
        features: number of features per channel.
        horizon: steps to forecast.
        channels: number of channels.
        individual: every channel has a map of its own; otherwise all share one.
        dropout: probability of dropping a step of the forecast in training.

    Source: Nie et al. 2023, section 3.1; where the dropout sits follows the published code.
    """

    def __init__(
        self,
        features: int,
        horizon: int,
        channels: int,
        *,
        individual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        copies = (channels,) if individual else ()
        bound = 1 / math.sqrt(features)
        self.individual = individual
        self.weight = nn.Parameter(torch.empty(*copies, horizon, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(*copies, horizon).uniform_(-bound, bound))
        self.dropout = Dropout(dropout)

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return the forecasts [B, C, H]."""
        if self.individual:
            forecast = torch.einsum("bcf,chf->bch", features_BCF, self.weight) + self.bias
        else:
            forecast = nn.functional.linear(features_BCF, self.weight, self.bias)
        return self.dropout(forecast)
