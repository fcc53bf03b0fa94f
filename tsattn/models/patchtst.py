"""PatchTST with active attention."""

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
    EncoderLayer,
    FeedForward,
    ForecastHead,
    MultiHeadActiveAttention,
    PatchEmbedding,
    QuantileLevels,
    RevIN,
    token_norm,
)
from tsattn.nn.auxiliary import Losses, summed
from tsattn.nn.covariates import PatchCovariates, Told
from tsattn.nn.evaluation import evaluate_at_once
from tsattn.nn.norm import NormKind, WindowStatistics, counts_over_batch
from tsattn.nn.parts import build_feedforward
from tsattn.ops import ValueActivation
from tsattn.tensors import Context, ContextMarks, Covariates, HorizonMarks, ObservedContext

_CACHED_FEATURES = 1 << 21
"""Tokens times width of the channels that are evaluated together: 8 MiB in float32."""


class PatchTST(ForecastNetwork):
    """A Transformer encoder over patches, the same for every channel.

    Window -> RevIN -> patches of each channel -> tokens -> encoder layers -> one linear map of all
    features (feature index = d * patches + p) -> horizon -> RevIN undone. Channels do not see each
    other.

    Args:
        channels: number of channels.
        context: steps of the window; needs not be a multiple of ``stride``.
        horizon: steps to forecast.
        patch_length: steps of a patch, at most ``context``; ``None`` means 16, or the context where
            that is shorter.
        stride: steps between the starts of two patches; ``None`` means half a patch.
        num_layers: encoder layers.
        d_model: width of a token.
        num_heads: attention heads; must divide ``d_model``.
        d_ff: hidden width of the feed-forward.
        dropout: dropout of tokens, hidden units and branches; the attention branch passes two.
        head_dropout: dropout of the forecast itself.
        value_activation: nonlinearity of the values in every attention, one of
            `tsattn.ops.VALUE_ACTIVATIONS` or any elementwise callable or module.
        feedforward: builds the feed-forward of each layer from ``d_model``, for example
            `tsattn.nn.moe.MoE` or a part of it; ``d_ff`` and ``dropout`` are handed on where it
            leaves them open. ``None`` means the dense one.
        residual_scores: add each layer's pre-softmax scores to those of the next.
        norm: ``batch`` (over all tokens) or ``layer`` (over the width of each).
        prenorm: normalise before a branch instead of after the addition.
        end_padding: repeat the last value ``stride`` times, which adds one patch.
        individual_head: every channel has an output map of its own.
        revin: normalise every window and channel, and undo it in the forecast.
        revin_affine: RevIN learns a weight and a bias per channel.
        subtract_last: RevIN takes the last value as the level instead of the mean.
        attention_impl: who computes the attention, see `tsattn.ops.Impl`.
        recompute: compute the inside of every layer again in the backward pass instead of keeping
            it: the same training, a fifth or a third slower, in about half the memory; see
            `tsattn.nn.slices`.
        known_covariates: number of covariates that are known ahead, over context and horizon.
        past_covariates: number of covariates that are known over the context alone.
        static_covariates: number of features that do not change within a series.
        quantiles: levels of the quantiles to forecast, with 0.5 among them, for example
            ``[0.1, 0.5, 0.9]``; the output map then has one output per step and quantile. ``None``
            means a point forecast.

    Raises:
        ValueError: sizes or quantiles that cannot work, an unknown activation, norm or
            implementation.

    Source: Nie et al. 2023, "A time series is worth 64 words"; details (residual scores, doubled
    dropout, batch norm) as in the authors' published code. Departure: the value activation,
    equation 20 of the active-attention paper. Addition: covariates, `tsattn.nn.covariates`; without
    them nothing is added, neither weights nor work.

    Example:
        >>> network = PatchTST(channels=7, context=336, horizon=192, value_activation="tanh")
        >>> network(torch.randn(4, 336, 7)).mean.shape
        torch.Size([4, 192, 7])
    """

    uses_calendar = False

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        patch_length: int | None = None,
        stride: int | None = None,
        num_layers: int = 3,
        d_model: int = 128,
        num_heads: int = 16,
        d_ff: int = 256,
        dropout: float = 0.2,
        head_dropout: float = 0.0,
        value_activation: ValueActivation = "identity",
        feedforward: Callable[[int], nn.Module] | None = None,
        residual_scores: bool = True,
        norm: NormKind = "batch",
        prenorm: bool = False,
        end_padding: bool = True,
        individual_head: bool = False,
        revin: bool = True,
        revin_affine: bool = False,
        subtract_last: bool = False,
        attention_impl: str = "auto",
        recompute: bool = False,
        known_covariates: int = 0,
        past_covariates: int = 0,
        static_covariates: int = 0,
        quantiles: Sequence[float] | None = None,
    ) -> None:
        super().__init__(channels, context, horizon)
        require_at_least(1, num_layers=num_layers, d_model=d_model, d_ff=d_ff)
        self.covariate_sizes = covariate_sizes(known_covariates, past_covariates, static_covariates)
        patch_length = min(16, context) if patch_length is None else patch_length
        stride = max(1, patch_length // 2) if stride is None else stride
        self.levels = QuantileLevels.of(quantiles)
        self.quantiles = self.levels.levels if self.levels else None
        self.revin = (
            RevIN(channels, affine=revin_affine, subtract_last=subtract_last) if revin else None
        )
        self.embed = PatchEmbedding(
            context, patch_length, stride, d_model, dropout=dropout, end_padding=end_padding
        )
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadActiveAttention(
                    d_model, num_heads, value_activation=value_activation, impl=attention_impl
                ),
                build_feedforward(feedforward, d_model, d_ff, dropout),
                token_norm(norm, d_model),
                token_norm(norm, d_model),
                dropout=dropout,
                attention_dropout=dropout,
                prenorm=prenorm,
                keep_scores=residual_scores and layer < num_layers - 1,
                recompute=recompute,
            )
            for layer in range(num_layers)
        )
        self.head = ForecastHead(
            d_model * self.embed.num_patches,
            horizon * (len(self.levels) if self.levels else 1),
            channels,
            individual=individual_head,
            dropout=head_dropout,
        )
        self.covariates = (
            PatchCovariates(
                self.covariate_sizes,
                horizon,
                patch_length,
                d_model,
                dropout=dropout,
                outputs=len(self.levels) if self.levels else 1,
            )
            if any(self.covariate_sizes)
            else None
        )

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
        observed_BTC: ObservedContext | None = None,
    ) -> Forecast:
        """Forecast every channel from its own window and the covariates, without the calendar.

        Level and spread are those of the observed steps. The others are at the level, 0 once it is
        taken out, and each patch is scaled by its steps over those observed, see `PatchEmbedding`.

        Raises:
            ValueError: a window or covariates of another shape than built for.
        """
        self.check_window(x_BTC, observed_BTC)
        told = self._told(x_BTC.shape[0], covariates)
        x, statistics = self._normalise(x_BTC, observed_BTC)
        in_parts = self._evaluates_in_parts(x.shape[0] * x.shape[2])
        forecast = self._in_parts if in_parts else self._forecast
        y_BCH, losses = forecast(x, observed_BTC, told)
        if self.levels:
            return self._with_quantiles(self.levels, y_BCH, statistics, losses)
        y_BHC = y_BCH.transpose(1, 2)
        if self.revin and statistics:
            y_BHC = self.revin.restore(y_BHC, statistics)
        return Forecast(y_BHC, losses=losses)

    def token_places(self, layer: str) -> TokenPlaces | None:
        """Return the middle and the channel of each patch; those of a channel lie together."""
        if not layer.startswith("layers."):
            return None
        embed = self.embed
        middles_P = torch.arange(embed.num_patches) * embed.stride + embed.patch_length // 2
        channels = torch.arange(self.channels).repeat_interleave(embed.num_patches)
        return TokenPlaces(middles_P.clamp_max(self.context - 1).repeat(self.channels), channels)

    def _told(self, batch: int, covariates: Covariates | None) -> Told | None:
        ahead = None if self.covariates is None else self.covariates.horizon
        self.check_covariates(batch, covariates, ahead)
        if self.covariates is None or covariates is None:
            return None
        return self.covariates(covariates, self.embed)

    def _normalise(
        self, x_BTC: Tensor, observed_BTC: Tensor | None
    ) -> tuple[Tensor, WindowStatistics | None]:
        if self.revin:
            normal_BTC, statistics = self.revin.normalise(x_BTC, observed_BTC)
            # a network in half precision takes its windows, and what is made of them, in that
            dtype = torch.promote_types(x_BTC.dtype, self.embed.position.dtype)
            return normal_BTC.to(dtype), statistics
        return x_BTC if observed_BTC is None else torch.where(observed_BTC, x_BTC, 0.0), None

    def _with_quantiles(
        self,
        levels: QuantileLevels,
        outputs_BCO: Tensor,
        statistics: WindowStatistics | None,
        losses: Losses,
    ) -> Forecast:
        """Make quantiles of the outputs, step by step: those of a step lie together."""
        sizes = (*outputs_BCO.shape[:2], self.horizon, len(levels))
        outputs_BHCQ = outputs_BCO.reshape(sizes).transpose(1, 2)
        median_BHC, gaps_BHCG = levels.split(outputs_BHCQ)
        if self.revin and statistics:
            median_BHC = self.revin.restore(median_BHC, statistics)
            gaps_BHCG = self.revin.restore_distances(gaps_BHCG, statistics)
        return Forecast(median_BHC, levels.join(median_BHC, gaps_BHCG), losses)

    def _forecast(
        self,
        x_BTC: Tensor,
        observed_BTC: Tensor | None,
        told: Told | None,
        head_weight: Tensor | None = None,
    ) -> tuple[Tensor, Losses]:
        tokens = self.embed(x_BTC, observed_BTC)
        if told is not None:
            tokens = tokens + told.tokens_BPD.unsqueeze(1)
        x_BPD, losses = self._apply_layers(tokens.flatten(0, 1))
        tokens = x_BPD.view_as(tokens)
        y_BCH = self.head(tokens, head_weight)
        if told is not None and self.covariates is not None:
            y_BCH = self.covariates.added_to(y_BCH, tokens, told)
        return y_BCH, losses

    def _in_parts(
        self, x_BTC: Tensor, observed_BTC: Tensor | None, told: Told | None
    ) -> tuple[Tensor, Losses]:
        """Forecast few channels at a time, as windows of their own, whose tokens fit a cache."""
        batch, context, channels = x_BTC.shape
        size = self._part_size

        def cut(values_BTC: Tensor) -> tuple[Tensor, ...]:
            return torch.split(values_BTC.transpose(1, 2).reshape(-1, context, 1), size)

        parts = cut(x_BTC)
        seen: Sequence[Tensor | None] = [None] * len(parts)
        tellings: Sequence[Told | None] = seen
        if observed_BTC is not None:
            seen = cut(observed_BTC)
        if told is not None:
            rows = torch.arange(batch, device=x_BTC.device).repeat_interleave(channels)
            tellings = [told.of(some) for some in torch.split(rows, size)]
        weight = self.head.weight_of_tokens(self.embed.num_patches) if len(parts) > 1 else None
        triples = zip(parts, seen, tellings, strict=True)
        forecasts = [self._forecast(*triple, weight)[0] for triple in triples]
        y = torch.cat(forecasts)
        return y.view(batch, channels, y.shape[-1]), {}

    @property
    def _part_size(self) -> int:
        """Channels of windows that are evaluated together."""
        return max(1, _CACHED_FEATURES // self.head.features)

    def _evaluates_in_parts(self, rows: int) -> bool:
        """Say whether channels share all maps, and every token is fed by itself.

        A mixture's losses are those of a whole batch, and an exported graph is of any batch.

        Args:
            rows: channels of all windows.
        """
        if torch.compiler.is_exporting():
            return False
        if self.training or torch.is_grad_enabled() or self.head.individual:
            return False
        if any(type(layer.feedforward) is not FeedForward for layer in self.layers):
            return False
        return rows <= self._part_size or not counts_over_batch(self.layers)

    def _apply_layers(self, x_BPD: Tensor) -> tuple[Tensor, Losses]:
        evaluated = evaluate_at_once(self.layers, x_BPD)
        if evaluated is not None:
            return evaluated, {}
        factors = None
        losses: Losses = {}
        for layer in self.layers:
            x_BPD, factors, more = layer(x_BPD, factors)
            losses = summed(losses, more)
        return x_BPD, losses
