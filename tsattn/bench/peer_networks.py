"""What our networks are compared with, as networks of ours: trained by our task on our windows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tsattn.bench.peers import huggingface_module, neuralforecast_module
from tsattn.models import Forecast, ForecastNetwork
from tsattn.tensors import Context, ContextMarks, Covariates, HorizonMarks
from tsattn.training.datamodule import run_seed


class TrainMean(ForecastNetwork):
    """Repeat the mean of the training rows: ``y_h = 0`` on the standardised scale."""

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast zeros; the windows are standardised by the training rows."""
        self.check_window(x_BTC)
        return Forecast(x_BTC.new_zeros(len(x_BTC), self.horizon, self.channels))


class _PublishedPatchTST(ForecastNetwork):
    """PatchTST of another library; its arguments are those of `tsattn.models.PatchTST`.

    Args:
        channels: number of channels.
        context: steps of the window.
        horizon: steps to forecast.
        patch_length: steps of a patch.
        stride: steps from one patch to the next.
        num_layers: encoder layers.
        d_model: width.
        num_heads: attention heads.
        d_ff: width of the feed-forward.
        dropout: wherever that library drops out, the weights of the attention excepted.

    Raises:
        MissingExtraError: the library is not installed.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        patch_length: int = 16,
        stride: int = 8,
        num_layers: int = 3,
        d_model: int = 128,
        num_heads: int = 16,
        d_ff: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(channels, context, horizon)
        given = {
            "patch_length": patch_length,
            "stride": stride,
            "num_layers": num_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
        }
        self.module = self._build(given)

    def _build(self, given: dict[str, Any]) -> torch.nn.Module:
        raise NotImplementedError


class NeuralforecastPatchTST(_PublishedPatchTST):
    """neuralforecast's PatchTST: the same architecture, with their own initial weights."""

    def _build(self, given: dict[str, Any]) -> torch.nn.Module:
        with _seed_kept():
            seed = run_seed() or 0
            sizes = (self.channels, self.context, self.horizon)
            return neuralforecast_module(sizes, given, seed=seed)

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast every channel as a series of its own."""
        self.check_window(x_BTC)
        series_ST1 = x_BTC.transpose(1, 2).reshape(-1, self.context, 1)
        forecast_SH1 = self.module({"insample_y": series_ST1})
        forecast_BCH = forecast_SH1.view(-1, self.channels, self.horizon)
        return Forecast(forecast_BCH.transpose(1, 2))


class HuggingFacePatchTST(_PublishedPatchTST):
    """Hugging Face's PatchTST: no residual scores, and no patch at the padded end."""

    def _build(self, given: dict[str, Any]) -> torch.nn.Module:
        return huggingface_module((self.channels, self.context, self.horizon), given)

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast all channels."""
        self.check_window(x_BTC)
        return Forecast(self.module(past_values=x_BTC).prediction_outputs)


@contextmanager
def _seed_kept() -> Iterator[None]:
    """Take back the seed of the run that neuralforecast's constructor sets for the process."""
    before = os.environ.get("PL_GLOBAL_SEED")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PL_GLOBAL_SEED", None)
        else:
            os.environ["PL_GLOBAL_SEED"] = before
