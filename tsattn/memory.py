"""How much memory this process has needed so far."""

import sys
from pathlib import Path

MIB = 2**20


def peak_resident_mib() -> float | None:
    """Return the largest resident memory of this process in MiB; None where nobody tells it.

    Linux tells the peak of the running program; the general figure of the operating system also
    counts the program that started it, and would be too high in a fresh process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def available_mib() -> float | None:
    """Return the memory in MiB that can be had before the machine swaps; None where unknown."""
    told = Path("/proc/meminfo")
    if told.is_file():
        for line in told.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return None
