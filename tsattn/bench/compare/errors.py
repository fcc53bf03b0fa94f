"""The errors of a network, window by window."""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from tsattn.bench.compare.ratios import Array, Counts, ratio
from tsattn.bench.opened import Opened, test
from tsattn.data.windows import WindowBatch

METRICS = ("mse", "mae")


@dataclass(frozen=True, eq=False)
class Sums:
    """Errors summed over observed targets, by window and part: a channel, or a step.

    Attributes:
        errors: sums over the observed targets, for ``mse`` and ``mae``.
        observed_WP: how many targets were observed.
    """

    errors: dict[str, Array]
    observed_WP: Counts

    def scores(self, metric: str) -> Array:
        """Return the mean over the observed targets of every part; NaN for a part without any."""
        return ratio(self.errors[metric].sum(axis=0), self.observed_WP.sum(axis=0))

    def means(self, metric: str) -> Array:
        """Return the same of every window by itself, [W, P]."""
        return ratio(self.errors[metric], self.observed_WP)


@dataclass(frozen=True, eq=False)
class ErrorsOfRun:
    """Errors of all test windows in time order, on the standardised scale.

    Attributes:
        channels: summed over the horizon.
        steps: summed over the channels.
    """

    channels: Sums
    steps: Sums

    def score(self, metric: str) -> float:
        """Return the score of all windows: the mean over channels that were observed."""
        seen_C = self.channels.observed_WP.sum(axis=0) > 0
        return float(self.channels.scores(metric)[seen_C].mean())

    def by_window(self, metric: str) -> Array:
        """Return the same of every window by itself; NaN for a window without targets.

        Their mean is the score where everything was observed.
        """
        seen_WC = self.channels.observed_WP > 0
        sums_W = np.where(seen_WC, self.channels.means(metric), 0.0).sum(axis=1)
        return ratio(sums_W, seen_WC.sum(axis=1))


def errors_of(opened: Opened) -> ErrorsOfRun:
    """Score all test windows of a run."""
    collected = _Collect()
    test(opened, collected)
    return collected.in_order()


class _Collect(Callback):
    """Keeps the errors of every test window, summed once over steps and once over channels."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.channels, self.steps = _Parts(over=1), _Parts(over=2)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: WindowBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        error_BHC = outputs.detach().float() - batch.future_BHC
        observed_BHC = batch.observed_future_BHC
        if observed_BHC is None:
            observed_BHC = torch.ones_like(error_BHC, dtype=torch.bool)
        error_BHC = torch.where(observed_BHC, error_BHC, 0.0).cpu().double()
        self.index.append(batch.index_B.cpu())
        for parts in (self.channels, self.steps):
            parts.add(error_BHC, observed_BHC.cpu())

    def in_order(self) -> ErrorsOfRun:
        """Return the errors in the order of the windows."""
        order_W = torch.cat(self.index).argsort()
        return ErrorsOfRun(self.channels.in_order(order_W), self.steps.in_order(order_W))


class _Parts:
    """Sums of batches over one axis of the horizon and the channels."""

    def __init__(self, over: int) -> None:
        self.over = over
        self.errors: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}
        self.observed: list[Tensor] = []

    def add(self, error_BHC: Tensor, observed_BHC: Tensor) -> None:
        """Add a batch, whose errors are 0 where no target was observed."""
        self.errors["mse"].append(error_BHC.square().sum(self.over))
        self.errors["mae"].append(error_BHC.abs().sum(self.over))
        self.observed.append(observed_BHC.sum(self.over, dtype=torch.int32))

    def in_order(self, order_W: Tensor) -> Sums:
        def ordered(parts: list[Tensor]) -> NDArray[Any]:
            return torch.cat(parts)[order_W].numpy()

        errors = {metric: ordered(parts) for metric, parts in self.errors.items()}
        return Sums(errors, ordered(self.observed))
