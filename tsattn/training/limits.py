"""Trainer settings that a run cannot have, and those that cut it short."""

from collections.abc import Mapping
from typing import Any

from tsattn.errors import ConfigError

_LIMITS = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "overfit_batches",
    "max_steps",
    "max_time",
)
_UNLIMITED = ("1.0", "0.0", "-1")  # a share of all, none overfitted, no end
_PRECISIONS = ("None", "32", "32-true", "64", "64-true", "bf16-mixed", "16-mixed")


def refuse_settings(trainer: Mapping[str, Any]) -> None:
    """Refuse settings under which there would be nothing to choose or to score.

    Args:
        trainer: the trainer's settings by name.

    Raises:
        ConfigError: with the setting, what was given and what works.
    """
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        if trainer[name] is not None and trainer[name] == 0:
            raise ConfigError(
                f"--trainer.{name} 0 leaves nothing to train on or to score; give at least 1, or "
                "leave it out for everything"
            )
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if (epochs is not None and epochs < 1) or (epochs is None and steps < 1):
        raise ConfigError(f"--trainer.max_epochs {epochs}: give the number of epochs, at least 1")
    if steps is not None and steps != -1 and steps < 1:
        raise ConfigError(f"--trainer.max_steps {steps}: give at least 1, or leave it out")
    if trainer["check_val_every_n_epoch"] != 1 or trainer["val_check_interval"] not in (None, 1.0):
        raise ConfigError(
            "validation runs after every epoch, since the best checkpoint is chosen by it; leave "
            "out --trainer.check_val_every_n_epoch and --trainer.val_check_interval"
        )
    if str(trainer["precision"]) not in _PRECISIONS:
        raise ConfigError(
            f"--trainer.precision {trainer['precision']} would run normalisation and loss in low "
            f"precision; expected one of {', '.join(_PRECISIONS[1:])}"
        )


def limits_of(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that cut a run short, by name; a full run has none."""
    given = {name: trainer[name] for name in _LIMITS if trainer[name] is not None}
    return {name: value for name, value in given.items() if repr(value) not in _UNLIMITED}
