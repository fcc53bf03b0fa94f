"""One trial as its worker sees it: a recipe, overrides, a seed; and what comes back."""

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from tsattn.training.callbacks import MONITOR
from tsattn.training.command import run
from tsattn.training.folder import RunFolder
from tsattn.tune.identity import data_of

Ask = Callable[[int, float], bool]
"""Reports an epoch (from 1) and its validation loss; the answer is whether to stop."""


@dataclass(frozen=True)
class Job:
    """What a worker needs for a trial; plain values, so that it reaches other machines.

    Attributes:
        number: Of the trial.
        recipe: Text of the whole recipe.
        words: Overrides, as typed after the recipe.
        folder: Where the run's files stay; None leaves none.
    """

    number: int
    recipe: str
    words: tuple[str, ...]
    folder: Path | None


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, where its worker could say so.

    Attributes:
        status: ``done``, ``stopped`` (told to after a report) or ``failed``.
        error: What went wrong.
        config: Text of the recipe as it was run.
        seconds: Wall time.
        data: What `data_of` says of the data; None where no epoch was reported.
    """

    status: Literal["done", "stopped", "failed"]
    error: str
    config: str
    seconds: float
    data: str | None = None


class StoppedError(Exception):
    """Leaves the training of a trial that was told to stop."""


class EpochReports(Callback):
    """Reports the validation loss after every epoch, and stops when told to.

    Attributes:
        data: What the losses were measured on, once there are any.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.data: str | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and leave the training where the answer is to stop."""
        loss = trainer.callback_metrics[MONITOR].item()
        module: Any = trainer
        self.data = data_of(module.datamodule.prepared.panel)
        if self.ask(trainer.current_epoch + 1, loss):
            raise StoppedError


def train(job: Job, ask: Ask) -> Outcome:
    """Train as ``tsattn fit`` would, without its test; whatever goes wrong is the outcome.

    Args:
        job: the trial.
        ask: called after every epoch.
    """
    started, reports = time.monotonic(), EpochReports(ask)
    with tempfile.TemporaryDirectory(prefix="tsattn-trial-") as scratch:
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(job.recipe, encoding="utf-8")
        folder = RunFolder(job.folder or Path(scratch) / "run")
        words = ["fit", "--config", str(recipe), "--run_dir", str(folder.path), *job.words]
        status, error = _fit(words, reports)
        config = folder.config.read_text(encoding="utf-8") if folder.config.is_file() else ""
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    gc.collect()
    # a path that is another one in every trial, and gone now, says nothing
    error = error.replace(scratch, "a scratch folder")
    return Outcome(status, error, config, round(time.monotonic() - started, 3), reports.data)


def _fit(
    words: Sequence[str], reports: EpochReports
) -> tuple[Literal["done", "stopped", "failed"], str]:
    try:
        run(words, callbacks=[reports], score_test=False)
    except StoppedError:
        return "stopped", ""
    except SystemExit as error:  # what the parser says lies in the log
        return "failed", f"the command did not take {' '.join(words)} (status {error.code})"
    except Exception as error:  # one trial's trouble is not the study's
        return "failed", f"{type(error).__name__}: {error}"
    return "done", ""
