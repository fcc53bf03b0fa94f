"""A grid of tiny cells, run as people run it: by the command, in a process of its own."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.training.tiny import RECIPE

NOT_COMPARED = ("wall_seconds", "peak_mib", "finished")
_COMMAND = """
import signal, sys
from tsattn.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
sys.exit(main())
"""


def write_grid(folder: Path, **changes: Any) -> Path:
    """Write a grid of the tiny recipe: two activations, two seeds; changed as asked for."""
    grid: dict[str, Any] = {
        "protocol": "tiny",
        "seeds": [7, 8],
        "datasets": ["illness"],
        "activations": ["identity", "tanh"],
        "models": {"patchtst": {"recipe": str(RECIPE)}},
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid | changes), encoding="utf-8")
    return path


def with_overrides(**overrides: Any) -> dict[str, Any]:
    """Return the models of a grid, the tiny recipe with other settings."""
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    return {"patchtst": {"recipe": str(RECIPE), "overrides": given}}


def start(grid: Path, home: Path, *words: str, cache: Path, env: Mapping[str, str]) -> Any:
    """Start ``tsattn bench run`` with ``home`` as its folder."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _COMMAND, "bench", "run", "--grid", str(grid), *words]
    return subprocess.Popen(
        command,
        cwd=home,
        env={**env, "TSATTN_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def comparable(file: Path) -> list[str]:
    """Return the lines of a results file with the columns of time cut out, the rest as it is."""
    import csv

    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return sorted(
        ",".join(value for name, value in row.items() if name not in NOT_COMPARED) for row in rows
    )
