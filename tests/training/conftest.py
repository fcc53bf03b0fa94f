"""One finished run for all tests that only look at one."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import Finished, fit
from tsattn.training.folder import RunFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run with pictures, TensorBoard and stored forecasts; look, but change nothing."""
    home = tmp_path_factory.mktemp("finished")
    run_dir, predictions = home / "run", home / "predictions.npz"
    result = fit(run_dir, "--trainer.logger", "null", "--save_predictions", predictions)
    return Finished(RunFolder(run_dir), result, predictions)


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as if matplotlib were missing: pictures take longer than a tiny training."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(autouse=True)
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a run leaves in the environment."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write_wide() -> Callable[..., Path]:
    """Write hourly random walks as a wide CSV file and return its path."""

    def write(path: Path, *, rows: int, channels: int = 2, seed: int = 0) -> Path:
        walks = np.random.default_rng(seed).normal(size=(rows, channels)).cumsum(axis=0)
        frame = pd.DataFrame(walks.round(3), columns=[f"c{i}" for i in range(channels)])
        frame.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        return path

    return write
