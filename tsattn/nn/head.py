"""From tokens to the horizon."""

import math

import torch
from torch import Tensor, nn

from tsattn.nn.dropout import Dropout
from tsattn.ops import linear


class ForecastHead(nn.Module):
    """One linear map from all features of a channel to its horizon.

    Of tokens, feature ``d * patches + p`` is feature d of token p, as published.

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

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecasts [B, C, H] from features [B, C, F] or tokens [B, C, P, D]."""
        weight: Tensor = self.weight
        if x.ndim == 4:
            if not self.individual and x.shape[0] * x.shape[1] > len(weight):
                # turning the weight around is less work than turning the tokens
                weight = weight.view(-1, x.shape[3], x.shape[2]).transpose(1, 2).flatten(1)
            else:
                x = x.transpose(2, 3)
            x = x.flatten(2)
        if self.individual:
            forecast = torch.einsum("bcf,chf->bch", x, weight) + self.bias
        else:
            forecast = linear(x, weight, self.bias)
        return self.dropout(forecast)
