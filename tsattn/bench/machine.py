"""What a timing is worth without: the machine, the versions, and whether something else ran."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from tsattn import __version__
from tsattn.training.hardware import processor, usable_cores
from tsattn.training.result import commit

BUSY_LOAD = 0.5
"""A load average, before anything was measured, from which on a machine counts as busy."""

_PACKAGES = ("torch", "lightning", "neuralforecast", "transformers")


def describe(threads: int) -> dict[str, Any]:
    """Return processor, cores, threads, versions, commit and the load average of this moment."""
    return {
        "processor": processor(torch.device("cpu")),
        "cores": usable_cores(),
        "threads": threads,
        "system": platform.platform(),
        "versions": {"tsattn": __version__, "python": platform.python_version()}
        | {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": commit(),
        "load": load(),
    }


def load() -> float | None:
    """Return the load average of the last minute; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy_warning(load_average: float | None) -> str | None:
    """Return what to say where something else is running; mostly nothing."""
    if load_average is None or load_average <= BUSY_LOAD:
        return None
    return (
        f"this machine is busy (load average {load_average:.1f}): ratios suffer, times are too "
        "long and shares of the ceilings too low; repeat it on a quiet machine"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
