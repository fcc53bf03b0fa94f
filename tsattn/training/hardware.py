"""What this machine computes with."""

import os
import platform
from pathlib import Path

import torch


def processor(device: torch.device) -> str:
    """Return the name of a device's processor and, of a CPU, its vector units."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"cpu: {name}, {torch.backends.cpu.get_cpu_capability()}"


def default_device() -> torch.device:
    """Return what trains where the settings leave it open: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
