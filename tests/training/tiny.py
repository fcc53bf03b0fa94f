"""The smallest run that shows everything: a PatchTST of 1,340 parameters on Illness."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tsattn.training.command import run
from tsattn.training.folder import RunFolder

RECIPE = Path(__file__).with_name("tiny.yaml")
CONTEXT, HORIZON, BATCH, EPOCHS = 36, 12, 64, 4
TRAIN_WINDOWS, TEST_WINDOWS = 629, 182
STEPS = TRAIN_WINDOWS // BATCH


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        folder: Its files.
        result: What `run` returned.
        predictions: The npz file it was asked for.
    """

    folder: RunFolder
    result: dict[str, Any]
    predictions: Path


def fit(run_dir: Path, *words: object) -> dict[str, Any]:
    """Train the tiny recipe and return its result."""
    result = run([*fit_words(run_dir), *map(str, words)])
    assert result is not None
    return result


def fit_words(run_dir: Path) -> list[str]:
    """Return what a person types to train the tiny recipe."""
    return ["fit", "--config", str(RECIPE), "--run_dir", str(run_dir)]


def resume(folder: RunFolder, *words: object) -> dict[str, Any]:
    """Go on with a run and return its result."""
    result = run(["fit", "--config", str(folder.config), "--ckpt_path", "last", *map(str, words)])
    assert result is not None
    return result


def epoch_table(folder: RunFolder) -> pd.DataFrame:
    """Return ``metrics.csv`` without the seconds, the numbers as they are written."""
    return pd.read_csv(folder.metrics, dtype=str).drop(columns="seconds")


def stored_result(folder: RunFolder) -> dict[str, Any]:
    """Return ``result.json``."""
    return json.loads(folder.result.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def python(script: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    file = cwd / "script.py"
    file.write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(file), *map(str, words)],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=240,
    )
