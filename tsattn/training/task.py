"""Training a forecaster: the LightningModule."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as L
import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.windows import WindowBatch
from tsattn.errors import ConfigError, NonFiniteLossError
from tsattn.metrics import QuantileErrors, WindowErrors
from tsattn.models import Forecast, ForecastNetwork
from tsattn.nn.auxiliary import loss_weights
from tsattn.nn.moe import CompetitionSchedule, plan_competitions
from tsattn.nn.quantiles import central_pairs
from tsattn.nn.stepping import after_step
from tsattn.tensors import CovariateSizes
from tsattn.training.calling import forecast_of, mean_where_observed
from tsattn.training.checkpoint import (
    FORMAT,
    RECORD,
    describe_network,
    load_network,
    require_same_network,
)
from tsattn.training.datamodule import ForecastData, run_seed
from tsattn.training.losses import LossName, make_loss, quantile_loss
from tsattn.training.schedules import EpochDecay, Place, Schedule

OptimizerName = Literal["adam", "adamw"]


def total_steps(trainer: L.Trainer) -> int | None:
    """Return the optimiser steps of a whole training; None where only time ends it."""
    total = trainer.estimated_stepping_batches
    return None if math.isinf(total) else int(total)


class ForecastTask(L.LightningModule):
    """Fit a network to windows, choose by validation loss, score on test windows.

    Args:
        network: the network.
        loss: ``mse``, ``mae``, ``huber`` or ``quantile``, see `make_loss`; the networks' auxiliary
            losses are added in training, each with the weight that its layers state. A network with
            quantiles is trained with ``quantile``: the mean over its levels (`quantile_loss`).
        quantile: which quantile ``loss="quantile"`` aims at in a network without quantiles.
        optimizer: ``adam`` or ``adamw``.
        learning_rate: the rate that the schedule's factor multiplies.
        weight_decay: of the optimiser.
        schedule: factor of the rate, and Adam's beta1, at every step; ``None`` means constant.

    Raises:
        ValueError: an unknown loss, a quantile outside (0, 1), a negative learning rate.

    Example:
        >>> data = ForecastData("ETTh1", context=336, horizon=192, batch_size=128)
        >>> task = ForecastTask(PatchTST(7, 336, 192, d_model=16, num_heads=4, d_ff=128))
        >>> L.Trainer(max_epochs=1).fit(task, data)
    """

    def __init__(
        self,
        network: ForecastNetwork,
        *,
        loss: LossName = "mse",
        quantile: float = 0.5,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        if learning_rate < 0:
            raise ConfigError(f"learning_rate must not be negative, got {learning_rate}")
        self.loss_name = loss
        self.quantile = quantile
        self.criterion = make_loss(loss, quantile)
        self.optimizer_name = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule or EpochDecay()
        self.loss_weights = loss_weights(network)
        self.val_errors = WindowErrors(network.channels)
        self.test_errors = WindowErrors(network.channels)
        levels = network.quantiles
        self.test_quantiles = QuantileErrors(levels, central_pairs(levels)) if levels else None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **arguments: Any) -> "ForecastTask":
        """Build the task around a checkpoint's trained network; executes nothing from the file."""
        return cls(load_network(checkpoint_path), **arguments)

    def forward(self, batch: WindowBatch) -> Forecast:
        """Forecast a batch of windows."""
        return forecast_of(self.network, batch)

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, auxiliary losses included."""
        forecast, loss = self._step(batch)
        weights = self.loss_weights
        total = loss + sum(weights.get(name, 1.0) * more for name, more in forecast.losses.items())
        self._require_finite(total, forecast, batch, batch_idx, part="training")
        size = len(batch.index_B)
        for name, value in {"loss": loss, **forecast.losses}.items():
            self.log(
                f"train/{name}",
                value,
                on_step=False,
                on_epoch=True,
                prog_bar=name == "loss",
                batch_size=size,
                sync_dist=True,
            )
        return total

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Score a batch of validation windows."""
        forecast, loss = self._step(batch)
        self._require_finite(loss, forecast, batch, batch_idx, part="validation")
        self.val_errors.update(
            forecast.mean.float(), batch.future_BHC, batch.index_B, batch.observed_future_BHC
        )
        observed = batch.observed_future_BHC
        size = len(batch.index_B) if observed is None else max(1, int(observed.sum()))
        self.log("val/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)

    def test_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Score a batch of test windows and return its forecasts [B, H, C]."""
        forecast, _ = self._step(batch)
        self.test_errors.update(
            forecast.mean.float(), batch.future_BHC, batch.index_B, batch.observed_future_BHC
        )
        if self.test_quantiles is not None and forecast.quantiles is not None:
            self.test_quantiles.update(
                forecast.quantiles, batch.future_BHC, batch.observed_future_BHC
            )
        return forecast.mean

    def _step(self, batch: WindowBatch) -> tuple[Forecast, Tensor]:
        forecast = self(batch)
        levels = self.network.quantiles
        if levels and forecast.quantiles is not None and self.loss_name == "quantile":
            criterion = partial(quantile_loss, levels=levels)
            return forecast, mean_where_observed(criterion, forecast.quantiles.float(), batch)
        return forecast, mean_where_observed(self.criterion, forecast.mean.float(), batch)

    def on_validation_epoch_start(self) -> None:
        """Score from nothing."""
        self.val_errors.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores over all windows; `val_errors` keeps them."""
        scores = self.val_errors.compute()
        self.log("val/mse", scores["mse"].float(), sync_dist=True)
        self.log("val/mae", scores["mae"].float(), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Score from nothing, and remember which windows published code would score."""
        self.test_errors.reset()
        if self.test_quantiles is not None:
            self.test_quantiles.reset()
        self.test_errors.first = self._data.published_test_windows if self._data else 0

    def on_test_epoch_end(self) -> None:
        """Log the test scores over all windows; `test_errors` keeps them."""
        scores = self.test_errors.compute()
        self.log("test/mse", scores["mse"].float(), sync_dist=True)
        self.log("test/mae", scores["mae"].float(), sync_dist=True)

    def require_covariates(self, data: ForecastData) -> None:
        """Refuse data with other covariates than the network takes.

        Raises:
            ConfigError: with the numbers of both.
        """
        found = CovariateSizes(data.known_covariates, data.past_covariates, data.static_covariates)
        if found != self.network.covariate_sizes:
            raise ConfigError(
                f"{type(self.network).__name__} takes covariates {self.network.covariate_sizes}; "
                f"the data have {found}; leave out --data.known_future, --data.past and "
                "--data.static, or train PatchTST or EncoderDecoderTransformer (built in Python, "
                "with known_covariates, past_covariates and static_covariates)"
            )

    def on_fit_start(self) -> None:
        """Refuse data with covariates that the network has no place for."""
        if self._data:
            self.require_covariates(self._data)

    def on_train_start(self) -> None:
        """Plan the competitions of the training, or go on with the plan of a resumed one.

        Raises:
            ConfigError: there are competitions to plan, and only time ends the training.
        """
        total = self._total_steps
        if total is None and any(isinstance(m, CompetitionSchedule) for m in self.modules()):
            raise ConfigError(
                "competitions of experts are planned over the whole training, which time alone "
                "ends here; give the trainer max_epochs or max_steps too"
            )
        plan_competitions(
            self.network,
            total or 0,
            run_seed() or 0,
            resume=self.trainer.global_step > 0,
        )

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        """Set the learning rate and beta1 of the coming step."""
        if batch_idx == 0:
            self._seed_epoch()
        place = Place(
            epoch=self.current_epoch + 1,
            step=self.trainer.global_step,
            total_steps=self._total_steps,
        )
        rate = self.learning_rate * self.schedule.factor(place)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
            group["betas"] = (self.schedule.momentum(place), group["betas"][1])
        self.log("learning_rate", rate, on_step=False, on_epoch=True, batch_size=1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and tell the parts of the network that go by steps."""
        super().optimizer_step(*args, **kwargs)
        after_step(self.network)

    def _seed_epoch(self) -> None:
        """Give every epoch a random stream of its own, so that resuming repeats it exactly.

        Done at the first batch: before that the loader draws from the stream, in a resumed epoch at
        another moment than in one that follows another. Without a seed of the run, nothing is done.
        """
        chosen = run_seed()
        if chosen is None:
            return
        seed = torch.Generator().manual_seed(chosen)
        offset = torch.randint(2**62, (), generator=seed).item()
        torch.manual_seed(offset + self.current_epoch * 1_000_003 + self.global_rank)

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the parameters to fit.

        Raises:
            ConfigError: the network has none, or has quantiles that the loss would not train.
        """
        if self.network.quantiles and (self.loss_name != "quantile" or self.quantile != 0.5):
            given = self.loss_name + (f" {self.quantile:g}" if self.quantile != 0.5 else "")
            raise ConfigError(
                f"the network forecasts the quantiles {list(self.network.quantiles)}, and the loss "
                f"{given} would train one of them alone; train it with --model.loss quantile, "
                "without --model.quantile"
            )
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError(
                f"{type(self.network).__name__} has no parameters, so there is nothing to fit; "
                "use 'tsattn test' to score it"
            )
        return parameters

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser; the schedule sets its rate before every step."""
        parameters = self.trainable()
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer_name]
        return kind(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def describe(self) -> dict[str, Any]:
        """Return the settings that decide how the network is trained, in plain values."""
        return {
            "loss": self.loss_name,
            "quantile": self.quantile,
            "optimizer": self.optimizer_name,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "schedule": {"class": type(self.schedule).__name__, **vars(self.schedule)},
            "seed": run_seed(),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record of network and data."""
        data = self._data.describe() if self._data else None
        checkpoint[RECORD] = {
            "format": FORMAT,
            "network": describe_network(self.network),
            "data": data,
            "training": self.describe(),
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another network."""
        require_same_network(checkpoint, self.network, Path(self.trainer.ckpt_path or "checkpoint"))

    @property
    def _total_steps(self) -> int | None:
        return total_steps(self.trainer)

    @property
    def _data(self) -> ForecastData | None:
        data = getattr(self.trainer, "datamodule", None)
        return cast(ForecastData, data) if isinstance(data, ForecastData) else None

    def _require_finite(
        self, loss: Tensor, forecast: Forecast, batch: WindowBatch, batch_idx: int, *, part: str
    ) -> None:
        if torch.isfinite(loss):
            return
        error_BHC = forecast.mean.detach().float() - batch.future_BHC
        channels = _non_finite(error_BHC.square())
        data = _non_finite(batch.past_BTC) + _non_finite(batch.future_BHC)
        names = dict(enumerate(self._data.prepared.panel.channels)) if self._data else {}
        bad = [names.get(channel, str(channel)) for channel in data or channels]
        named = listed(bad, most=10) or "unknown (an auxiliary loss)"
        advice = (
            "its standardised values are beyond float32; mend the data"
            if data
            else "try a lower --model.learning_rate or --trainer.gradient_clip_val 1"
        )
        raise NonFiniteLossError(
            f"the {part} loss became {loss.item()} in epoch {self.current_epoch + 1}, "
            f"batch {batch_idx + 1}, channel {named}; "
            f"checkpoints of earlier epochs are kept; {advice}"
        )


def _non_finite(values_BLC: Tensor) -> list[int]:
    """Return the channels with a value that is no finite number."""
    return (~torch.isfinite(values_BLC)).any(dim=0).any(dim=0).nonzero().flatten().tolist()
