"""Training: the LightningModule, the LightningDataModule, schedules, runs and their folders.

The names below are loaded when they are first used: whoever needs a recipe alone does not wait for
Lightning.
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
    "EpochDecay": "schedules",
    "ForecastData": "datamodule",
    "ForecastTask": "task",
    "OneCycle": "schedules",
    "Schedule": "schedules",
    "load_network": "checkpoint",
    "upcycle_checkpoint": "upcycling",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tsattn.training' has no attribute {name!r}")
    return getattr(import_module(f"tsattn.training.{_HOMES[name]}"), name)
