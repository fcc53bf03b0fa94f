"""The encoder-decoder Transformer with active attention as a model of neuralforecast."""

from collections.abc import Mapping
from typing import Any

from neuralforecast.losses.pytorch import MAE
from torch import Tensor, nn

from tsattn.interop.neuralforecast.base import (
    ActiveModel,
    Part,
    as_factory,
    as_stored,
    base_arguments,
    outputs_of,
)
from tsattn.models import EncoderDecoderTransformer
from tsattn.ops import ValueActivation


class ActiveTransformer(ActiveModel):
    """`tsattn.models.EncoderDecoderTransformer` as a univariate model with covariates.

    Covariates are those of the network: future ones are known ahead, historical ones past, static
    ones static, and categorical ones are what neuralforecast's embedding makes of them. There are
    no calendar features beside them.

    Args:
        h: steps to forecast.
        input_size: steps of the window.
        loss: a loss of neuralforecast; ``None`` means MAE.
        label: as in `tsattn.models.EncoderDecoderTransformer`.
        encoder_layers: as in `tsattn.models.EncoderDecoderTransformer`.
        decoder_layers: as in `tsattn.models.EncoderDecoderTransformer`.
        d_model: as in `tsattn.models.EncoderDecoderTransformer`; smaller by default.
        num_heads: as in `tsattn.models.EncoderDecoderTransformer`.
        d_ff: as in `tsattn.models.EncoderDecoderTransformer`; smaller by default.
        dropout: as in `tsattn.models.EncoderDecoderTransformer`.
        value_activation: as in `tsattn.models.EncoderDecoderTransformer`; a callable trains, and
            cannot be saved.
        feedforward: as in `tsattn.models.EncoderDecoderTransformer`, or its description in plain
            values: ``{"class": "MoE", "arguments": {"num_experts": 4}}``.
        attention_impl: as in `tsattn.models.EncoderDecoderTransformer`.
        scaler_type: neuralforecast's scaling of windows; the network has none of its own.
        base: every other argument of neuralforecast's BaseModel (``futr_exog_list``, ``max_steps``,
            ...) and of Lightning's Trainer, by name. Their defaults are those of neuralforecast's
            PatchTST.

    Raises:
        ConfigError: an unknown name.
        ValueError: sizes that cannot work.
    """

    EXOGENOUS_FUTR = True
    EXOGENOUS_HIST = True
    EXOGENOUS_STAT = True
    EXOGENOUS_CAT = True
    MULTIVARIATE = False
    RECURRENT = False

    def __init__(
        self,
        h: int,
        input_size: int,
        *,
        loss: nn.Module | None = None,
        label: int | None = None,
        encoder_layers: int = 2,
        decoder_layers: int = 1,
        d_model: int = 128,
        num_heads: int = 8,
        d_ff: int = 256,
        dropout: float = 0.05,
        value_activation: ValueActivation = "identity",
        feedforward: Part = None,
        attention_impl: str = "auto",
        scaler_type: str | None = "standard",
        **base: Any,
    ) -> None:
        loss = MAE() if loss is None else loss
        base = base_arguments(type(self), {**base, "scaler_type": scaler_type})
        super().__init__(h=h, input_size=input_size, loss=loss, **base)
        settings: dict[str, Any] = {
            "label": label,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "value_activation": value_activation,
            "attention_impl": attention_impl,
        }
        network = EncoderDecoderTransformer(
            1,
            self.input_size,
            h,
            feedforward=as_factory(feedforward),
            calendar_features=0,
            **self.numbers_of_covariates,
            **settings,
        )
        if outputs_of(loss) > 1:  # several numbers for each step of the one series
            network.project = nn.Linear(d_model, outputs_of(loss))
        self.adopt(network, {**settings, "feedforward": as_stored(feedforward)})

    def forward(self, windows_batch: Mapping[str, Any]) -> Tensor:
        """Return the outputs [windows, h, outputs] of the loss for windows [windows, input, 1]."""
        covariates = self.covariates(windows_batch)
        return self.network(windows_batch["insample_y"], covariates=covariates).mean
