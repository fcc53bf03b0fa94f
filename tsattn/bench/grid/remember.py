"""What a run learns about its own steps is kept for the next plan."""

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.measured import Measured, write_measured
from tsattn.training.estimate import FirstSteps
from tsattn.training.hardware import processor


class Remember(Callback):
    """Leaves the steps that a run measured at its beginning in the user's cache.

    Args:
        cell: the cell that runs.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.done = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note what the first epoch told."""
        if not self.done:
            self._note(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Note what was told when the steps were run for that alone."""
        self.on_train_epoch_end(trainer, pl_module)

    def _note(self, trainer: L.Trainer) -> None:
        callbacks: Any = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        steps = [callback for callback in callbacks if isinstance(callback, FirstSteps)]
        estimate = steps[0].estimate if steps else None
        if estimate is None or not trainer.is_global_zero:
            return
        self.done = True
        measured = Measured(
            device=processor(trainer.strategy.root_device),
            step_seconds=estimate.step_seconds,
            evaluation_seconds=estimate.evaluation_seconds,
            epoch_seconds=estimate.epoch_seconds,
            peak_mib=estimate.peak_mib,
        )
        write_measured(self.cell, torch.get_num_threads(), measured)
