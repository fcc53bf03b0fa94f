"""Small trained networks, as files, for the tests of forecasting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pandas as pd
import pytest

from tests.forecast.made import long_frame, wide_frame
from tests.training.tiny import RECIPE, Finished, fit
from tsattn.forecast import Forecaster
from tsattn.models import DLinear, ForecastNetwork
from tsattn.training import ForecastData, ForecastTask
from tsattn.training.command import run
from tsattn.training.folder import RunFolder
from tsattn.training.refit import undisturbed_process
from tsattn.training.saving import SafeCheckpointIO


@pytest.fixture(scope="session")
def illness(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run on Illness of two epochs, with all forecasts of the test stored; change nothing."""
    home = tmp_path_factory.mktemp("illness")
    predictions = home / "predictions.npz"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
            patch.delenv(name, raising=False)
        result = fit(
            home / "run", "--trainer.max_epochs", 2, "--save_predictions", predictions,
            "--trainer.logger", "false",
        )  # fmt: skip
    return Finished(RunFolder(home / "run"), result, predictions)


@pytest.fixture(scope="session")
def forecaster(illness: Finished) -> Forecaster:
    """That run's forecaster."""
    return Forecaster.load(illness.folder.path)


@pytest.fixture(scope="session")
def illness_frame(root: Path) -> pd.DataFrame:
    """The shipped Illness file with its dates as timestamps."""
    frame = pd.read_csv(root / "datasets" / "national_illness.csv")
    return frame.assign(date=pd.to_datetime(frame["date"]))


Train = Callable[..., Path]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a network on a frame for a few steps and return its checkpoint."""

    def train(
        frame: pd.DataFrame,
        *,
        build: Callable[[ForecastData], ForecastNetwork] | None = None,
        context: int = 12,
        horizon: int = 4,
        **options: Any,
    ) -> Path:
        home = tmp_path_factory.mktemp("trained")
        frame.to_csv(home / "train.csv", index=False)
        data = ForecastData(
            str(home / "train.csv"), context=context, horizon=horizon, batch_size=16, **options
        )
        network = build(data) if build else DLinear(data.channels, context, horizon, kernel_size=3)
        trainer = L.Trainer(
            max_steps=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            plugins=[SafeCheckpointIO()],
        )
        trainer.fit(ForecastTask(network, learning_rate=1e-3), data)
        trainer.save_checkpoint(home / "trained.ckpt")
        return home / "trained.ckpt"

    return train


Fit = Callable[..., Path]


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Train on a frame for an epoch with the command's function and return the run folder."""

    def fitted(frame: pd.DataFrame, *words: object) -> Path:
        home = tmp_path_factory.mktemp("fitted")
        frame.to_csv(home / "own.csv", index=False)
        typed: list[object] = ["fit", "--config", RECIPE, "--data.dataset", home / "own.csv"]
        typed += ["--data.context", 12, "--data.horizon", 4, "--run_dir", home / "run"]
        typed += ["--trainer.max_epochs", 1, *words]
        with undisturbed_process():
            run(list(map(str, typed)))
        return home / "run"

    return fitted


@pytest.fixture(scope="session")
def wide(train: Train) -> Forecaster:
    """DLinear on three hourly channels a, b and c."""
    return Forecaster.load(train(wide_frame()))


@pytest.fixture(scope="session")
def long(train: Train) -> Forecaster:
    """DLinear on three daily series s0, s1 and s2 of unequal length."""
    return Forecaster.load(train(long_frame()))


@pytest.fixture
def numbers() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(3)
