"""Learning-rate schedules that are what their names say.

A schedule is a pure function of the place in training: nothing to save, nothing to restore, and it
can be printed and plotted before the first step. The published PatchTST code builds a one-cycle
scheduler for every run, whose constructor alone sets the first epoch's rate to 1/25 and Adam's
beta1 to .95, also where another schedule then takes over; here both are arguments that stand in the
recipe.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tsattn.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where training stands before an optimiser step.

    Attributes:
        epoch: epoch, from 1.
        step: optimiser step since the start, from 0.
        total_steps: optimiser steps of the whole training, early stopping aside; None where only
            time ends it.
    """

    epoch: int
    step: int
    total_steps: int | None


class Schedule(ABC):
    """Factor of the learning rate, and Adam's beta1, at a place in training."""

    @abstractmethod
    def factor(self, place: Place) -> float:
        """Return the factor of the learning rate."""

    @abstractmethod
    def momentum(self, place: Place) -> float:
        """Return Adam's beta1."""


class EpochDecay(Schedule):
    """``lr * first_epoch_factor`` in epoch 1, ``lr`` until ``hold_epochs``, then a decay per epoch.

    Epoch ``e > hold_epochs`` runs at ``lr * decay ** (e - hold_epochs)``.

    * published "type3": ``first_epoch_factor=.04, hold_epochs=4, decay=.9, beta1=.95``
    * published "type1" (halving): ``hold_epochs=2, decay=.5``
    * constant: ``decay=1``

    Args:
        first_epoch_factor: factor of epoch 1.
        hold_epochs: last epoch at the full rate.
        decay: factor of every later epoch, in (0, 1].
        beta1: Adam's beta1 throughout.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        first_epoch_factor: float = 1.0,
        hold_epochs: int = 1,
        decay: float = 1.0,
        beta1: float = 0.9,
    ) -> None:
        in_range = 0 < decay <= 1 and first_epoch_factor > 0 and hold_epochs >= 1 and 0 <= beta1 < 1
        if not in_range:
            raise ValueError(
                "expected first_epoch_factor > 0, hold_epochs >= 1, 0 < decay <= 1 and "
                f"0 <= beta1 < 1; got {first_epoch_factor}, {hold_epochs}, {decay}, {beta1}"
            )
        self.first_epoch_factor = first_epoch_factor
        self.hold_epochs = hold_epochs
        self.decay = decay
        self.beta1 = beta1

    def factor(self, place: Place) -> float:
        """Return the factor of the learning rate."""
        if place.epoch == 1:
            return self.first_epoch_factor
        return self.decay ** max(0, place.epoch - self.hold_epochs)

    def momentum(self, place: Place) -> float:
        """Return Adam's beta1."""
        return self.beta1


class OneCycle(Schedule):
    """Up along a cosine for a share of all steps, then down along a cosine; beta1 the other way.

    The rate goes ``lr / start_divisor -> lr -> lr / (start_divisor * end_divisor)``, beta1
    ``beta1_high -> beta1_low -> beta1_high``.

    Args:
        warmup: share of the steps until the peak, in (0, 1).
        start_divisor: the first rate is ``lr`` divided by this.
        end_divisor: the last rate is the first one divided by this.
        beta1_high: beta1 at both ends.
        beta1_low: beta1 at the peak.

    Raises:
        ValueError: a warm-up outside (0, 1).

    Source: Smith and Topin 2018, "Super-convergence"; where the peak lies follows
    `torch.optim.lr_scheduler.OneCycleLR`.
    """

    def __init__(
        self,
        warmup: float = 0.3,
        start_divisor: float = 25.0,
        end_divisor: float = 1e4,
        beta1_high: float = 0.95,
        beta1_low: float = 0.85,
    ) -> None:
        if not 0 < warmup < 1:
            raise ValueError(f"warmup is a share of all steps, in (0, 1), got {warmup}")
        self.warmup = warmup
        self.start_divisor = start_divisor
        self.end_divisor = end_divisor
        self.beta1_high = beta1_high
        self.beta1_low = beta1_low

    def factor(self, place: Place) -> float:
        """Return the factor of the learning rate."""
        start = 1 / self.start_divisor
        return self._between(place, start, 1.0, start / self.end_divisor)

    def momentum(self, place: Place) -> float:
        """Return Adam's beta1."""
        return self._between(place, self.beta1_high, self.beta1_low, self.beta1_high)

    def _between(self, place: Place, start: float, peak: float, end: float) -> float:
        if place.total_steps is None:
            raise ConfigError(
                f"{type(self).__name__} goes by the length of the training, which time alone ends "
                "here; give the trainer max_epochs or max_steps too"
            )
        last = max(place.total_steps - 1, 1)
        summit = self.warmup * place.total_steps - 1
        if place.step <= summit:
            return _cosine(start, peak, place.step / summit if summit > 0 else 1.0)
        return _cosine(peak, end, min(1.0, (place.step - summit) / max(last - summit, 1e-12)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
