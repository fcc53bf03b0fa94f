"""PatchTST with active attention as a model of neuralforecast."""

from collections.abc import Mapping
from typing import Any

from neuralforecast.losses.pytorch import MAE
from torch import Tensor, nn

from tsattn.errors import ConfigError
from tsattn.interop.neuralforecast.base import (
    ActiveModel,
    Part,
    as_factory,
    as_stored,
    base_arguments,
    is_distribution,
    outputs_of,
)
from tsattn.models import PatchTST
from tsattn.nn.covariates import PatchCovariates
from tsattn.nn.norm import NormKind
from tsattn.ops import ValueActivation


class ActivePatchTST(ActiveModel):
    """`tsattn.PatchTST` as a univariate model: every series from its own past and its covariates.

    Future covariates are the network's known ones, historical ones past, static ones static, and
    categorical ones are what neuralforecast's embedding makes of them.

    Args:
        h: steps to forecast.
        input_size: steps of the window.
        loss: a loss of neuralforecast; ``None`` means MAE.
        patch_length: as in `tsattn.PatchTST`.
        stride: as in `tsattn.PatchTST`.
        num_layers: as in `tsattn.PatchTST`.
        d_model: as in `tsattn.PatchTST`.
        num_heads: as in `tsattn.PatchTST`.
        d_ff: as in `tsattn.PatchTST`.
        dropout: as in `tsattn.PatchTST`.
        head_dropout: as in `tsattn.PatchTST`.
        value_activation: as in `tsattn.PatchTST`; a callable trains, and cannot be saved.
        feedforward: as in `tsattn.PatchTST`, or its description in plain values:
            ``{"class": "MoE", "arguments": {"num_experts": 4}}``.
        residual_scores: as in `tsattn.PatchTST`.
        norm: as in `tsattn.PatchTST`.
        prenorm: as in `tsattn.PatchTST`.
        end_padding: as in `tsattn.PatchTST`.
        revin: normalise every window, and undo it in the forecast. ``None`` means unless ``loss``
            is a distribution: it is undone in values, and parameters of a distribution are none.
        revin_affine: as in `tsattn.PatchTST`.
        subtract_last: as in `tsattn.PatchTST`.
        attention_impl: as in `tsattn.PatchTST`.
        recompute: as in `tsattn.PatchTST`.
        scaler_type: neuralforecast's scaling of windows. ``auto`` means ``identity`` where RevIN
            normalises and no covariate needs it, else ``standard``.
        base: every other argument of neuralforecast's BaseModel (``max_steps``, ``learning_rate``,
            ``valid_loss``, ``batch_size``, ``random_seed``, ``alias``, ...) and of Lightning's
            Trainer (``accelerator``, ``logger``, ...), by name. Their defaults are those of
            neuralforecast's PatchTST.

    Raises:
        ConfigError: an unknown name, or ``revin`` with a distribution.
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
        patch_length: int | None = None,
        stride: int | None = None,
        num_layers: int = 3,
        d_model: int = 128,
        num_heads: int = 16,
        d_ff: int = 256,
        dropout: float = 0.2,
        head_dropout: float = 0.0,
        value_activation: ValueActivation = "identity",
        feedforward: Part = None,
        residual_scores: bool = True,
        norm: NormKind = "batch",
        prenorm: bool = False,
        end_padding: bool = True,
        revin: bool | None = None,
        revin_affine: bool = False,
        subtract_last: bool = False,
        attention_impl: str = "auto",
        recompute: bool = False,
        scaler_type: str | None = "auto",
        **base: Any,
    ) -> None:
        loss = MAE() if loss is None else loss
        revin = _revin(revin, loss)
        if scaler_type == "auto":
            beside = base.get("futr_exog_list") or base.get("hist_exog_list")
            scaler_type = "identity" if revin and not beside else "standard"
        base = base_arguments(type(self), {**base, "scaler_type": scaler_type})
        super().__init__(h=h, input_size=input_size, loss=loss, **base)
        settings: dict[str, Any] = {
            "patch_length": patch_length,
            "stride": stride,
            "num_layers": num_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "head_dropout": head_dropout,
            "value_activation": value_activation,
            "residual_scores": residual_scores,
            "norm": norm,
            "prenorm": prenorm,
            "end_padding": end_padding,
            "revin": revin,
            "revin_affine": revin_affine,
            "subtract_last": subtract_last,
            "attention_impl": attention_impl,
            "recompute": recompute,
        }
        # the numbers of a step lie together, as in neuralforecast's PatchTST
        network = PatchTST(
            1,
            self.input_size,
            h * outputs_of(loss),
            feedforward=as_factory(feedforward),
            **self.numbers_of_covariates,
            **settings,
        )
        if network.covariates is not None and outputs_of(loss) > 1:
            network.covariates = PatchCovariates(
                network.covariate_sizes,
                h,
                network.embed.patch_length,
                d_model,
                dropout=dropout,
                outputs=outputs_of(loss),
            )
        self.adopt(network, {**settings, "feedforward": as_stored(feedforward)})

    def forward(self, windows_batch: Mapping[str, Any]) -> Tensor:
        """Return the outputs [windows, h, outputs] of the loss for windows [windows, input, 1]."""
        covariates = self.covariates(windows_batch)
        y_BHC = self.network(windows_batch["insample_y"], covariates=covariates).mean
        return y_BHC.reshape(len(y_BHC), self.h, -1)


def _revin(given: bool | None, loss: nn.Module) -> bool:
    distribution = is_distribution(loss)
    if given and distribution:
        raise ConfigError(
            f"revin=True restores values, but {type(loss).__name__} reads parameters of a "
            "distribution; leave revin out, and let scaler_type='standard' normalise each window"
        )
    return not distribution if given is None else given
