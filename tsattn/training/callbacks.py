"""What a run leaves in its folder while it trains, and what it keeps of its test."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from tsattn.data.windows import WindowBatch
from tsattn.training.folder import RunFolder, write_atomically

MONITOR = "val/loss"


def checkpoint_callbacks(folder: RunFolder) -> list[ModelCheckpoint]:
    """Keep the checkpoint with the lowest validation loss and that of the last epoch."""
    best = ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename=folder.best.stem,
        monitor=MONITOR,
        mode="min",
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename=folder.last.stem,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [best, last]


class EpochTable(Callback):
    """Writes ``metrics.csv``: one row per finished epoch; a resumed run keeps the earlier rows.

    Columns: epoch (from 1), step, seconds (training and validation of the epoch), and everything
    that was logged, such as train/loss, val/loss, val/mse, val/mae, learning_rate.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the rows of the epochs before the one that training begins with."""
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [r for r in csv.DictReader(file) if int(r["epoch"]) <= trainer.current_epoch]
            self.rows = list(rows)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        metrics = {k: v.item() for k, v in sorted(trainer.callback_metrics.items())}
        metrics["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        self.rows.append(row | metrics)
        if trainer.is_global_zero:
            self._write()

    @property
    def seconds(self) -> float:
        """Seconds of all epochs so far, those before a resume included."""
        return sum(float(row["seconds"]) for row in self.rows)

    def _write(self) -> None:
        text = io.StringIO(newline="")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())


class Predictions(Callback):
    """Keeps the forecasts of the test windows, in the windows' order, standardised."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from nothing."""
        self.batches = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: WindowBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch."""
        self.batches.append((batch.index_B.cpu(), outputs.detach().float().cpu()))

    def in_order(self) -> Tensor:
        """Return the forecasts [windows, horizon, channels]."""
        index = torch.cat([index for index, _ in self.batches])
        return torch.cat([forecast for _, forecast in self.batches])[index.argsort()]
