"""Training: the LightningModule, the LightningDataModule, schedules, runs and their folders.

The names below are loaded when they are first used, so that a checkpoint is read without Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsattn.training.checkpoint import load_network
    from tsattn.training.datamodule import ForecastData
    from tsattn.training.schedules import EpochDecay, OneCycle, Schedule
    from tsattn.training.task import ForecastTask
    from tsattn.training.upcycling import upcycle_checkpoint

__all__ = [
    "EpochDecay",
    "ForecastData",
    "ForecastTask",
    "OneCycle",
    "Schedule",
    "load_network",
    "upcycle_checkpoint",
]

_HOMES = {
    "ForecastData": "tsattn.training.datamodule",
    "ForecastTask": "tsattn.training.task",
    "load_network": "tsattn.training.checkpoint",
    "upcycle_checkpoint": "tsattn.training.upcycling",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home; everything without one listed is a schedule."""
    if name not in __all__:
        raise AttributeError(f"module 'tsattn.training' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "tsattn.training.schedules")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
