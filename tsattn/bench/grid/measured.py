"""Steps measured at the beginning of a run, kept in the user's cache for the next plan."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tsattn.bench.grid.cells import Cell
from tsattn.data.load import cache_dir
from tsattn.files import write_atomically


@dataclass(frozen=True)
class Measured:
    """Steps of one configuration, measured on one machine with so many threads."""

    device: str
    step_seconds: float
    evaluation_seconds: float
    epoch_seconds: float
    peak_mib: float | None


def measured_file(cell: Cell, threads: int) -> Path:
    """Return where the steps of a cell's configuration are kept, whatever seed or activation."""
    return cache_dir() / "measured" / f"{cell.key.config_hash}-{threads}.json"


def read_measured(cell: Cell, threads: int, device: str) -> Measured | None:
    """Return the steps measured on a processor; None where there are none."""
    try:
        text = measured_file(cell, threads).read_text(encoding="utf-8")
        found = Measured(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.device == device else None


def write_measured(cell: Cell, threads: int, measured: Measured) -> None:
    """Keep steps for later plans, where there is room; no run fails because there is none."""
    file = measured_file(cell, threads)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(measured)))
    except OSError as error:
        print(f"the measured steps are not kept for later plans: {error}")
