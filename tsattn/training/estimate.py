"""How long a run will take and how much memory it needs, measured at its own first steps.

Measuring changes nothing of the run: training steps are only timed, and the one look at validation
windows runs in evaluation mode, without gradients, with the random streams put back afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from tsattn.memory import MIB, peak_resident_mib
from tsattn.training.amounts import duration, memory
from tsattn.training.datamodule import ForecastData

_WARM_UP = 1


class EnoughMeasuredError(Exception):
    """Leaves the training whose steps were only run to be measured."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        step_seconds: one training batch, reading it included; the median of those measured.
        evaluation_seconds: one batch of validation windows.
        epoch_seconds: training and validation of an epoch.
        epochs: epochs still to come; None where the run has no last one.
        peak_mib: largest memory so far, of the process or of the accelerator; None if unknown.
        steps: training steps that were measured.
    """

    step_seconds: float
    evaluation_seconds: float
    epoch_seconds: float
    epochs: float | None
    peak_mib: float | None
    steps: int

    @property
    def total_seconds(self) -> float | None:
        """Seconds until the last epoch has ended; early stopping may come before."""
        return None if self.epochs is None else self.epochs * self.epoch_seconds

    def line(self) -> str:
        """Say it in one line: ``about 38 s per epoch, 63 min for 100 epochs, 1.1 GiB``."""
        parts = [f"about {duration(self.epoch_seconds)} per epoch"]
        if self.total_seconds is not None and self.epochs is not None:
            count = f"{self.epochs:.3g} epoch{'' if self.epochs == 1 else 's'}"
            parts.append(f"{duration(self.total_seconds)} for {count}")
        if self.peak_mib is not None:
            parts.append(memory(self.peak_mib))
        return ", ".join(parts)

    def text(self) -> str:
        """Say it in full, one figure a line."""
        total = "no last epoch is set"
        if self.total_seconds is not None:
            total = f"at most {duration(self.total_seconds)} ({self.epochs:.3g} epochs)"
        return "\n".join(
            (
                f"step           {duration(self.step_seconds)} (median of {self.steps})",
                f"evaluation     {duration(self.evaluation_seconds)} per batch",
                f"epoch          {duration(self.epoch_seconds)}, with validation",
                f"whole training {total}",
                f"peak memory    {'unknown' if self.peak_mib is None else memory(self.peak_mib)}",
            )
        )


class FirstSteps(Callback):
    """Times the first training steps, and says once what the run will take.

    Args:
        stop: leave the training after that, with `EnoughMeasuredError`.
        least_steps: steps to measure, besides one to warm up.
        least_seconds: time to measure for, unless ``most_steps`` come before.
        most_steps: steps after which it is enough in any case.
        clock: tells the seconds.
    """

    def __init__(
        self,
        *,
        stop: bool = False,
        least_steps: int = 3,
        least_seconds: float = 1.0,
        most_steps: int = 20,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.stop = stop
        self.least_steps = least_steps
        self.least_seconds = least_seconds
        self.most_steps = most_steps
        self.clock = clock
        self.ends: list[float] = []
        self.estimate: Estimate | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock at the first step."""
        if not self.ends:
            self.ends.append(self.clock())

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the end of a step; after enough of them, say what the run will take."""
        if self.estimate is not None:
            return
        _finish_device_work(trainer)
        self.ends.append(self.clock())
        if not self._enough(last=batch_idx + 1 >= trainer.num_training_batches):
            return
        steps = [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]
        steps = steps[_WARM_UP:] or steps
        evaluation = self._evaluation_seconds(trainer, pl_module)
        self.estimate = estimate_of(trainer, median(steps), evaluation, len(steps))
        if trainer.is_global_zero:
            pl_module.print(self.estimate.text() if self.stop else self.estimate.line())
        if self.stop:
            raise EnoughMeasuredError

    def _enough(self, *, last: bool) -> bool:
        steps = len(self.ends) - 1 - _WARM_UP
        if steps < self.least_steps and not last:
            return False
        measured = self.ends[-1] - self.ends[min(_WARM_UP, len(self.ends) - 1)]
        return last or steps >= self.most_steps or measured >= self.least_seconds

    def _evaluation_seconds(self, trainer: L.Trainer, task: L.LightningModule) -> float:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ForecastData) or not _validation_batches(trainer):
            return 0.0
        precision = trainer.precision_plugin
        batch = data.prepared.val[: data.eval_batch_size]
        batch = precision.convert_input(trainer.strategy.batch_to_device(batch))
        with undisturbed(task), torch.inference_mode(), precision.val_step_context():
            task(batch)  # warms up
            _finish_device_work(trainer)
            start = self.clock()
            task(batch)
            _finish_device_work(trainer)
            return self.clock() - start


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluate a module in between: modes and random streams are afterwards as they were."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode


def estimate_of(
    trainer: L.Trainer, step_seconds: float, evaluation_seconds: float, steps: int
) -> Estimate:
    """Put the measured times together to what the rest of the run will take."""
    batches = trainer.num_training_batches
    validation = _validation_batches(trainer) * evaluation_seconds
    epoch_seconds = batches * step_seconds + validation / (trainer.check_val_every_n_epoch or 1)
    limits: list[float] = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(max(0, trainer.max_epochs - trainer.current_epoch))
    if trainer.max_steps >= 0:
        left = max(0, trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        limits.append(left / batches)
    device = trainer.strategy.root_device
    on_gpu = device.type == "cuda"
    return Estimate(
        step_seconds=step_seconds,
        evaluation_seconds=evaluation_seconds,
        epoch_seconds=epoch_seconds,
        epochs=min(limits, default=None),
        peak_mib=torch.cuda.max_memory_allocated(device) / MIB if on_gpu else peak_resident_mib(),
        steps=steps,
    )


def _validation_batches(trainer: L.Trainer) -> float:
    return sum(trainer.num_val_batches)


def _finish_device_work(trainer: L.Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
