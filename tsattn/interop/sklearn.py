"""PatchTST as an estimator of scikit-learn: windows in, horizons out.

A sample is a window of a series and its target what came next, in one unit. scikit-learn's tools
handle tables, so windows of several channels lie flat in a row: what ``windows.reshape(n, -1)``
makes of ``[n, context, channels]``. Such an estimator clones, pickles, and works in ``Pipeline``
and ``GridSearchCV``.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from tsattn.errors import DataError, NonFiniteLossError
from tsattn.models import Forecast, PatchTST
from tsattn.models.base import require_at_least
from tsattn.nn.auxiliary import loss_weights
from tsattn.nn.moe import plan_competitions
from tsattn.nn.stepping import after_step
from tsattn.ops import ValueActivation
from tsattn.training.losses import LossName, make_loss

_FAR = 10.0
"""Deviations of X by which y may lie beside it, or spread, before that is no forecast of it."""

_EVALUATED = 1024
"""Windows that are evaluated together."""


class ActivePatchTSTRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """`tsattn.PatchTST` fitted to windows and the horizons that follow them.

    Values are standardised per channel with mean and deviation of the windows of ``fit``, and
    forecasts are returned in the unit of the horizons. The network is that of `tsattn.PatchTST`,
    small by default, trained by Adam for a fixed number of epochs.

    Args:
        channels: channels of a window; every row is ``[steps, channels]`` laid flat.
        patch_length: as in `tsattn.PatchTST`.
        stride: as in `tsattn.PatchTST`.
        num_layers: as in `tsattn.PatchTST`.
        d_model: as in `tsattn.PatchTST`.
        num_heads: as in `tsattn.PatchTST`.
        d_ff: as in `tsattn.PatchTST`.
        dropout: as in `tsattn.PatchTST`.
        value_activation: as in `tsattn.PatchTST`.
        feedforward: as in `tsattn.PatchTST`.
        revin: as in `tsattn.PatchTST`; ``False`` where the level of a window matters.
        loss: ``mse``, ``mae``, ``huber`` or ``quantile``, see `tsattn.training.losses.make_loss`;
            auxiliary losses of the network are added with their weights.
        quantile: which quantile ``loss="quantile"`` aims at.
        learning_rate: of Adam.
        weight_decay: of Adam.
        max_epochs: passes over the windows.
        batch_size: windows of an optimiser step.
        random_state: seed of weights, order and dropout; torch's own random stream stays as it is.

    Attributes:
        network_: the trained network.
        horizon_: steps that it forecasts.
        mean_: mean of every channel.
        scale_: deviation of every channel.
        loss_curve_: mean training loss of every epoch, standardised, auxiliary losses included.
        n_features_in_: columns of a window.

    Example:
        >>> series = np.sin(np.arange(300) / 4)
        >>> rows = np.lib.stride_tricks.sliding_window_view(series, 24 + 6)
        >>> model = ActivePatchTSTRegressor(max_epochs=2, random_state=0)
        >>> model.fit(rows[:, :24], rows[:, 24:]).predict(rows[:5, :24]).shape
        (5, 6)
    """

    n_features_in_: int

    def __init__(
        self,
        channels: int = 1,
        *,
        patch_length: int | None = None,
        stride: int | None = None,
        num_layers: int = 2,
        d_model: int = 16,
        num_heads: int = 4,
        d_ff: int = 64,
        dropout: float = 0.1,
        value_activation: ValueActivation = "identity",
        feedforward: Callable[[int], nn.Module] | None = None,
        revin: bool = True,
        loss: LossName = "mse",
        quantile: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        max_epochs: int = 20,
        batch_size: int = 32,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.channels = channels
        self.patch_length = patch_length
        self.stride = stride
        self.num_layers = num_layers
        self.d_model = d_model
        self.num_heads = num_heads
        self.d_ff = d_ff
        self.dropout = dropout
        self.value_activation: Any = value_activation
        self.feedforward = feedforward
        self.revin = revin
        self.loss: Any = loss
        self.quantile = quantile
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train a network.

        Args:
            X: windows, [n, context * channels], rows in the order of time.
            y: what followed, [n, horizon * channels], or [n] for one step of one channel.

        Raises:
            ValueError: values that are missing or no numbers, widths that ``channels`` does not
                divide, settings that cannot work.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_features=1
        )
        require_at_least(
            1, channels=self.channels, max_epochs=self.max_epochs, batch_size=self.batch_size
        )
        self._forecasts_one_step = y.ndim == 1
        y = y.reshape(len(y), -1).astype(np.float64)
        for name, table in (("X", X), ("y", y)):
            if table.shape[1] % self.channels:
                raise DataError(
                    f"rows of {name} have {table.shape[1]} values, which cannot be steps of "
                    f"{self.channels} channels; lay [n, steps, channels] flat by reshape(n, -1), "
                    "and give channels"
                )
        self.horizon_ = y.shape[1] // self.channels
        self._standardise_like(X)
        self._warn_of_units(y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network_ = self._network()
            self.loss_curve_ = self._train(self._standardised(X), self._standardised(y), seed)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Forecast the horizon of every window.

        Args:
            X: windows, [n, context * channels].

        Returns:
            Forecasts in the shape that ``y`` had: [n, horizon * channels], or [n].

        Raises:
            DataError: values that are beyond float32 once they are standardised.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with torch.inference_mode():
            parts = [self.network_(part).mean for part in self._standardised(X).split(_EVALUATED)]
        y_BHC = torch.cat(parts).double().numpy() * self.scale_ + self.mean_
        if not np.isfinite(y_BHC).all():
            raise DataError(
                f"no finite forecast of X with values up to {np.abs(X).max():.3g}: standardised as "
                "in fit they are too large; look at their unit"
            )
        return y_BHC.ravel() if self._forecasts_one_step else y_BHC.reshape(len(X), -1)

    def _standardise_like(self, X: np.ndarray) -> None:
        values = X.reshape(-1, self.channels)
        with np.errstate(over="ignore", invalid="ignore"):
            scaler = StandardScaler().fit(values)
        self.mean_, self.scale_ = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
        if not (np.isfinite(self.mean_) & np.isfinite(np.asarray(scaler.var_))).all():
            raise DataError(
                f"values of X up to {np.abs(X).max():.3g} are too large to be standardised; "
                "divide them by a constant"
            )

    def _warn_of_units(self, y: np.ndarray) -> None:
        """Warn where horizons cannot be what follows such windows: one of both was scaled alone."""
        values = y.reshape(-1, self.channels)
        away = np.abs(values.mean(0) - self.mean_) / self.scale_
        wide = values.std(0) / self.scale_
        channel = int(np.argmax(np.maximum(away, wide)))
        if max(away[channel], wide[channel]) <= _FAR:
            return
        warnings.warn(
            f"channel {channel}: y has mean {values[:, channel].mean():.3g} and deviation "
            f"{values[:, channel].std():.3g}, X {self.mean_[channel]:.3g} and "
            f"{self.scale_[channel]:.3g}; both are standardised alike, so give X and y in one unit "
            "(no scaler of the columns before this regressor, none of the target around it)",
            stacklevel=3,
        )

    def _standardised(self, table: np.ndarray) -> Tensor:
        """Return windows [n, steps, channels] in float32."""
        values = table.reshape(len(table), -1, self.channels)
        with np.errstate(over="ignore"):  # what is beyond float32 makes the loss infinite
            return torch.from_numpy(((values - self.mean_) / self.scale_).astype(np.float32))

    def _network(self) -> PatchTST:
        return PatchTST(
            self.channels,
            self.n_features_in_ // self.channels,
            self.horizon_,
            patch_length=self.patch_length,
            stride=self.stride,
            num_layers=self.num_layers,
            d_model=self.d_model,
            num_heads=self.num_heads,
            d_ff=self.d_ff,
            dropout=self.dropout,
            value_activation=self.value_activation,
            feedforward=self.feedforward,
            revin=self.revin,
        )

    def _train(self, x_NTC: Tensor, y_NHC: Tensor, seed: int) -> list[float]:
        network, weights = self.network_, loss_weights(self.network_)
        criterion = make_loss(self.loss, self.quantile)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        steps = self.max_epochs * math.ceil(len(x_NTC) / self.batch_size)
        plan_competitions(network, steps, seed)
        curve: list[float] = []
        network.train()
        for epoch in range(1, self.max_epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(x_NTC)).split(self.batch_size):
                forecast: Forecast = network(x_NTC[rows])
                loss = criterion(forecast.mean, y_NHC[rows])
                for name, more in forecast.losses.items():
                    loss = loss + weights.get(name, 1.0) * more
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                after_step(network)
                total += loss.item() * len(rows)
            curve.append(total / len(x_NTC))
            if not np.isfinite(curve[-1]):
                raise NonFiniteLossError(
                    f"the training loss became {curve[-1]} in epoch {epoch}; try a learning_rate "
                    f"below {self.learning_rate}, or look for extreme values in X and y"
                )
        network.eval()
        return curve
