"""The encoder-decoder Transformer with active attention."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tsattn.models.base import (
    Forecast,
    ForecastNetwork,
    TokenPlaces,
    covariate_sizes,
    require_at_least,
)
from tsattn.nn import (
    CalendarEmbedding,
    DecoderLayer,
    EncoderLayer,
    MultiHeadActiveAttention,
    QuantileLevels,
)
from tsattn.nn.auxiliary import Losses, summed
from tsattn.nn.parts import build_feedforward
from tsattn.ops import ValueActivation
from tsattn.tensors import Context, ContextMarks, Covariates, HorizonMarks, ObservedContext


class EncoderDecoderTransformer(ForecastNetwork):
    """The field's baseline: encode the window, decode the whole horizon in one pass.

    A token is one time step with all its channels. The decoder sees the last ``label`` steps of
    the window followed by zeros for the horizon; its outputs at the zeros are the forecast. Layers
    are post-norm with a final LayerNorm per stack; the decoder's self-attention is causal.

    Args:
        channels: number of channels.
        context: steps of the window.
        horizon: steps to forecast.
        label: last steps of the window that the decoder starts from, at most ``context``; ``None``
            means half of it.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder.
        d_model: width of a token.
        num_heads: attention heads; must divide ``d_model``.
        d_ff: hidden width of the feed-forward.
        dropout: dropout of tokens, attention weights, hidden units and branches.
        value_activation: nonlinearity of the values in all three attentions, one of
            `tsattn.ops.VALUE_ACTIVATIONS` or any elementwise callable or module.
        feedforward: builds the feed-forward of each layer from ``d_model``, for example
            `tsattn.nn.moe.MoE` or a part of it; ``d_ff`` and ``dropout`` are handed on where it
            leaves them open. ``None`` means the dense one.
        calendar_features: number of calendar features M of every step; 0 for none.
        attention_impl: who computes the attention, see `tsattn.ops.Impl`.
        quantiles: levels of the quantiles to forecast, with 0.5 among them, for example
            ``[0.1, 0.5, 0.9]``; the last map then has one output per channel and quantile. ``None``
            means a point forecast.
        known_covariates: number of covariates that are known ahead, over context and horizon.
        past_covariates: number of covariates that are known over the context alone.
        static_covariates: number of features that do not change within a series.

    Covariates are embedded beside the calendar features of every step, by the same linear map:
    those known ahead as they are, past ones as zeros in the horizon (as the values themselves),
    static ones at every step, which adds one vector to all tokens.

    Raises:
        ValueError: sizes or quantiles that cannot work, an unknown activation or implementation.

    Source: Vaswani et al. 2017, with the embedding and the one-pass decoder of Zhou et al. 2021
    ("Informer"). Departure: the value activation, equation 20 of the active-attention paper.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        label: int | None = None,
        encoder_layers: int = 2,
        decoder_layers: int = 1,
        d_model: int = 512,
        num_heads: int = 8,
        d_ff: int = 2048,
        dropout: float = 0.05,
        value_activation: ValueActivation = "identity",
        feedforward: Callable[[int], nn.Module] | None = None,
        calendar_features: int = 4,
        attention_impl: str = "auto",
        known_covariates: int = 0,
        past_covariates: int = 0,
        static_covariates: int = 0,
        quantiles: Sequence[float] | None = None,
    ) -> None:
        super().__init__(channels, context, horizon)
        require_at_least(1, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
        require_at_least(1, d_model=d_model, d_ff=d_ff)
        require_at_least(0, calendar_features=calendar_features)
        self.levels = QuantileLevels.of(quantiles)
        self.quantiles = self.levels.levels if self.levels else None
        self.label = context // 2 if label is None else label
        if not 0 <= self.label <= context:
            raise ValueError(f"label must be within the context 0..{context}, got {label}")
        self.calendar_features = calendar_features
        self.covariate_sizes = covariate_sizes(known_covariates, past_covariates, static_covariates)
        beside = calendar_features + sum(self.covariate_sizes)
        self.uses_calendar = calendar_features > 0

        def attention() -> MultiHeadActiveAttention:
            return MultiHeadActiveAttention(
                d_model,
                num_heads,
                value_activation=value_activation,
                weight_dropout=dropout,
                impl=attention_impl,
            )

        def embedding() -> CalendarEmbedding:
            return CalendarEmbedding(channels, d_model, calendar_features=beside, dropout=dropout)

        self.encoder_embed = embedding()
        self.decoder_embed = embedding()
        self.encoder = nn.ModuleList(
            EncoderLayer(
                attention(),
                build_feedforward(feedforward, d_model, d_ff, dropout),
                nn.LayerNorm(d_model),
                nn.LayerNorm(d_model),
                dropout=dropout,
            )
            for _ in range(encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(d_model)
        self.decoder = nn.ModuleList(
            DecoderLayer(
                attention(),
                attention(),
                build_feedforward(feedforward, d_model, d_ff, dropout),
                d_model,
                dropout=dropout,
            )
            for _ in range(decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(d_model)
        self.project = nn.Linear(d_model, channels * (len(self.levels) if self.levels else 1))

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
        observed_BTC: ObservedContext | None = None,
    ) -> Forecast:
        """Forecast the horizon from the window, the calendar of both, and the covariates.

        A value that was not observed is 0, the mean of the training rows. The token of a step of
        which nothing was still has its position, its calendar, and the values of the steps before
        and after it, by the convolution over three steps. That one is circular: the first and the
        last step of a sequence are neighbours.

        Raises:
            ValueError: a window, calendar features or covariates of another shape than built for.
        """
        self.check_window(x_BTC, observed_BTC)
        self._check_marks(x_BTC.shape[0], marks_BTM, future_marks_BHM)
        self.check_covariates(x_BTC.shape[0], covariates)
        if covariates is not None:
            marks_BTM, future_marks_BHM = self._beside(covariates, marks_BTM, future_marks_BHM)
        if observed_BTC is not None:
            x_BTC = torch.where(observed_BTC, x_BTC, 0.0)
        losses: Losses = {}
        memory = self.encoder_embed(x_BTC, marks_BTM)
        for layer in self.encoder:
            memory, _, more = layer(memory)
            losses = summed(losses, more)
        memory = self.encoder_norm(memory)
        y = self.decoder_embed(*self._decoder_input(x_BTC, marks_BTM, future_marks_BHM))
        for layer in self.decoder[:-1]:
            y, more = layer(y, memory)
            losses = summed(losses, more)
        y, more = self.decoder[-1](y, memory, last=self.horizon)
        y = self.project(self.decoder_norm(y))
        losses = summed(losses, more)
        if self.levels is None:
            return Forecast(y, losses=losses)
        median_BHC, gaps_BHCG = self.levels.split(y.unflatten(-1, (self.channels, -1)))
        return Forecast(median_BHC, self.levels.join(median_BHC, gaps_BHCG), losses)

    def token_places(self, layer: str) -> TokenPlaces | None:
        """Return the step of each token; the last layer of the decoder sees the horizon alone."""
        stack, _, rest = layer.partition(".")
        if stack == "encoder":
            return TokenPlaces(torch.arange(self.context))
        if stack != "decoder":
            return None
        is_last = rest.split(".")[0] == str(len(self.decoder) - 1)
        start = self.context - (0 if is_last else self.label)
        return TokenPlaces(torch.arange(start, self.context + self.horizon))

    def _beside(
        self, covariates: Covariates, marks_BTM: Tensor | None, future_marks_BHM: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Put covariates beside the calendar features of every step."""
        known_BLG, past_BTO, static_BA = covariates
        ahead = self.horizon
        static = static_BA.unsqueeze(1)
        past = [known_BLG[:, :-ahead], past_BTO, static.expand(-1, self.context, -1)]
        unknown = past_BTO.new_zeros(len(past_BTO), ahead, past_BTO.shape[-1])
        future = [known_BLG[:, -ahead:], unknown, static.expand(-1, ahead, -1)]
        if self.calendar_features and marks_BTM is not None and future_marks_BHM is not None:
            past, future = [marks_BTM, *past], [future_marks_BHM, *future]
        return torch.cat(past, dim=-1), torch.cat(future, dim=-1)

    def _decoder_input(
        self, x_BTC: Tensor, marks_BTM: Tensor | None, future_marks_BHM: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        start = self.context - self.label
        unknown = x_BTC.new_zeros(x_BTC.shape[0], self.horizon, self.channels)
        values = torch.cat([x_BTC[:, start:], unknown], dim=1)
        if marks_BTM is None or future_marks_BHM is None:
            return values, None
        return values, torch.cat([marks_BTM[:, start:], future_marks_BHM], dim=1)

    def _check_marks(
        self, batch: int, marks_BTM: Tensor | None, future_marks_BHM: Tensor | None
    ) -> None:
        if not self.calendar_features:
            return
        for name, marks, steps in (
            ("marks", marks_BTM, self.context),
            ("future_marks", future_marks_BHM, self.horizon),
        ):
            given = None if marks is None else list(marks.shape)
            if given != [batch, steps, self.calendar_features]:
                raise ValueError(
                    f"{type(self).__name__} expects {name} of [batch {batch}, steps {steps}, "
                    f"calendar_features {self.calendar_features}], got {given}"
                )
