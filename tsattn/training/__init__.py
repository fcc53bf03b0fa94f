"""Training: the LightningModule, the LightningDataModule, schedules, runs and their folders."""

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
