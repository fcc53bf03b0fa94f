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
from tsattn.files import write_atomically
from tsattn.training.folder import RunFolder

MONITOR = "val/loss"


def checkpoint_callbacks(folder: RunFolder) -> list[ModelCheckpoint]:
    """Keep the checkpoint with the lowest validation loss and that of the last epoch."""
    best = FolderCheckpoint(
        dirpath=folder.checkpoints,
        filename=folder.best.stem,
        monitor=MONITOR,
        mode="min",
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = FolderCheckpoint(
        dirpath=folder.checkpoints,
        filename=folder.last.stem,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [best, last]


class FolderCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that still knows its best score after its folder was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over, with this folder in place of the one it was saved in."""
        best = Path(self.dirpath or "") / Path(state_dict["best_model_path"]).name
        if state_dict.get("dirpath") != self.dirpath and best.is_file():
            here = str(best)
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": here,
                "kth_best_model_path": here,
                "best_k_models": dict.fromkeys([here], *state_dict["best_k_models"].values()),
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


class StayStopped(Callback):
    """Leaves a resumed run as it is where early stopping had ended it already.

    A patience that was raised since then counts; Lightning alone would restore the old one.
    """

    def __init__(self) -> None:
        self.patience: dict[int, int] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the patience that was asked for, before a checkpoint brings back its own."""
        self.patience = {id(c): c.patience for c in trainer.early_stopping_callbacks}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first epoch where patience had run out."""
        for callback in trainer.early_stopping_callbacks:
            callback.patience = self.patience[id(callback)]
            if callback.wait_count >= callback.patience:
                trainer.should_stop = True


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
        self.rows = [r for r in self._stored() if int(r["epoch"]) <= trainer.current_epoch]

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
        return sum(float(row["seconds"]) for row in self.rows or self._stored())

    def _stored(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self) -> None:
        text = io.StringIO(newline="")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())


class Predictions(Callback):
    """Keeps standardised forecasts of the test windows: all of them, or the last batch alone.

    With several processes the first one has the forecasts of all.

    Args:
        everything: whether all batches are kept.
    """

    def __init__(self, *, everything: bool) -> None:
        self.everything = everything
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
        if not self.everything:
            self.batches.clear()
        self.batches.append((batch.index_B.cpu(), outputs.detach().float().cpu()))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the batches of all processes to the first one."""
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            gather = torch.distributed.gather_object
            gather(self.batches, gathered if trainer.is_global_zero else None)
            self.batches = [batch for batches in gathered for batch in batches or ()]

    def in_order(self) -> tuple[Tensor, Tensor]:
        """Return the windows' indices [windows] and forecasts [windows, horizon, channels]."""
        index_W = torch.cat([index for index, _ in self.batches])
        forecasts_WHC = torch.cat([forecast for _, forecast in self.batches])
        order = index_W.argsort()
        return index_W[order], forecasts_WHC[order]
