"""The errors of a network, window by window."""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from tsattn.bench.opened import Opened, test
from tsattn.data.windows import WindowBatch

METRICS = ("mse", "mae")
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ErrorsOfRun:
    """Errors of all test windows in time order, on the standardised scale.

    Attributes:
        by_channel_WC: mean over the horizon, for ``mse`` and ``mae``.
        by_step_WH: mean over the channels, likewise.
    """

    by_channel_WC: dict[str, Array]
    by_step_WH: dict[str, Array]

    def by_window(self, metric: str) -> Array:
        """Return the mean over horizon and channels of every window."""
        return self.by_channel_WC[metric].mean(axis=1)


def errors_of(opened: Opened) -> ErrorsOfRun:
    """Score all test windows of a run."""
    collected = _Collect()
    test(opened, collected)
    return collected.in_order()


def _mean(error_BHC: Tensor, dim: int) -> Tensor:
    """Return the mean over observed targets; 0, in which no two runs differ, without any."""
    if not torch.isnan(error_BHC).any():
        return error_BHC.mean(dim=dim)
    return error_BHC.nanmean(dim=dim).nan_to_num(0.0)


class _Collect(Callback):
    """Keeps the errors of every test window, averaged once over steps and once over channels."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.channels: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}
        self.steps: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}

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
        error_BHC = (outputs.detach().float() - batch.truth()).cpu().double()
        self.index.append(batch.index_B.cpu())
        for metric, value_BHC in {"mse": error_BHC.square(), "mae": error_BHC.abs()}.items():
            self.channels[metric].append(_mean(value_BHC, dim=1))
            self.steps[metric].append(_mean(value_BHC, dim=2))

    def in_order(self) -> ErrorsOfRun:
        """Return the errors in the order of the windows."""
        order = torch.cat(self.index).argsort()
        channels, steps = (
            {metric: torch.cat(parts)[order].numpy() for metric, parts in found.items()}
            for found in (self.channels, self.steps)
        )
        return ErrorsOfRun(channels, steps)
