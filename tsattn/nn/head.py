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

    @property
    def features(self) -> int:
        """Number of features per channel."""
        return self.weight.shape[-1]

    def weight_of_tokens(self, patches: int) -> Tensor:
        """Return the shared weight [H, P * D] for features that lie token by token."""
        return self.weight.view(len(self.weight), -1, patches).transpose(1, 2).flatten(1)

    def forward(self, x: Tensor, weight_of_tokens: Tensor | None = None) -> Tensor:
        """Return the forecasts [B, C, H] from features [B, C, F] or tokens [B, C, P, D].

        Args:
            x: features or tokens.
            weight_of_tokens: of the method of that name, where it is needed more than once.
        """
        weight: Tensor = self.weight
        if x.ndim == 4:
            # turning the weight around is less work than turning many tokens
            many = torch.compiler.is_exporting() or x.shape[0] * x.shape[1] > len(weight)
            many = many and not self.individual
            if many and weight_of_tokens is None:
                weight_of_tokens = self.weight_of_tokens(x.shape[2])
            if weight_of_tokens is None:
                x = x.transpose(2, 3)
            else:
                weight = weight_of_tokens
            x = x.flatten(2)
        if self.individual:
            forecast = torch.einsum("bcf,chf->bch", x, weight) + self.bias
        else:
            forecast = linear(x, weight, self.bias)
        return self.dropout(forecast)
