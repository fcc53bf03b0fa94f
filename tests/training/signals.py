"""Frames whose signal lies in a covariate, and what a small network makes of them."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pandas as pd

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.training import ForecastData, ForecastTask

CONTEXT, HORIZON = 16, 4
Build = Callable[[ForecastData], ForecastNetwork]


def known_frame(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Channel y is twice the covariate z of the same hour; z cannot be foreseen."""
    numbers = np.random.default_rng(seed)
    z = numbers.normal(size=rows)
    times = pd.date_range("2020-01-01", periods=rows, freq="h")
    return pd.DataFrame(
        {"date": times, "z": 50 + 10 * z, "y": 2 * z + 0.1 * numbers.normal(size=rows)}
    )


def past_frame(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Channel y is what the covariate p was a horizon earlier."""
    frame = known_frame(rows, seed).rename(columns={"z": "p"})
    frame["p"] = frame["y"].shift(-HORIZON, fill_value=0.0)
    return frame


def static_frame(rows: int = 320, series: int = 6, seed: int = 0) -> pd.DataFrame:
    """Every 16 days something known happens, to which half of the series answer the other way.

    A window of 8 + 8 days has it once: what a series makes of it, its past never shows. Neither
    does its level, since what happens sums to nothing.
    """
    numbers = np.random.default_rng(seed)
    sizes = np.repeat(numbers.normal(2, 0.5, rows // 32), 2) * np.tile([1, -1], rows // 32)
    happens = np.zeros(rows)
    happens[5::16] = sizes
    parts = []
    for name in range(series):
        kind = 1 if name % 2 else -1
        parts.append(
            pd.DataFrame(
                {
                    "unique_id": f"s{name}",
                    "ds": pd.date_range("2020-01-01", periods=rows, freq="D"),
                    "y": 100 * name + kind * happens + 0.05 * numbers.normal(size=rows),
                    "happens": happens,
                    "kind": kind,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def patchtst(data: ForecastData) -> ForecastNetwork:
    """A PatchTST of one layer with the covariates of the data."""
    return PatchTST(
        data.channels, data.context, data.horizon, patch_length=4, stride=2, num_layers=1,
        d_model=16, num_heads=2, d_ff=32, dropout=0.0, known_covariates=data.known_covariates,
        past_covariates=data.past_covariates, static_covariates=data.static_covariates,
    )  # fmt: skip


def transformer(data: ForecastData) -> ForecastNetwork:
    """A Transformer of a layer each with the covariates of the data."""
    return EncoderDecoderTransformer(
        data.channels, data.context, data.horizon, encoder_layers=1, decoder_layers=1,
        d_model=16, num_heads=2, d_ff=32, dropout=0.0, calendar_features=data.calendar_features,
        known_covariates=data.known_covariates, past_covariates=data.past_covariates,
        static_covariates=data.static_covariates,
    )  # fmt: skip


def mse_of(build: Build, file: Path, *, steps: int = 200, **options: object) -> float:
    """Return the test MSE as a share of what the mean makes, after a few steps of training."""
    sizes = {"context": CONTEXT, "horizon": HORIZON} | options
    data = ForecastData(str(file), batch_size=32, eval_batch_size=256, **sizes)  # pyright: ignore
    trainer = L.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    L.seed_everything(1, verbose=False)
    task = ForecastTask(build(data), learning_rate=1e-2)
    trainer.fit(task, data)
    variance = float(data.prepared.test[:].future_BHC.square().mean())
    return float(trainer.test(task, data, verbose=False)[0]["test/mse"]) / variance
