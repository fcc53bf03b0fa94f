"""What a run states about itself: scores, floors, and everything needed to trust them."""

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn

from tsattn.data.treatment import describe_treatment
from tsattn.data.windows import Windows
from tsattn.errors import ExistsError
from tsattn.files import replacing
from tsattn.metrics import WindowErrors
from tsattn.models import ForecastNetwork, LastValue, SeasonalNaive, WindowMean
from tsattn.nn import MultiHeadActiveAttention
from tsattn.ops.impl import Impl, taken_by_auto
from tsattn.training.calling import forecast_of
from tsattn.training.checkpoint import describe_network, read_checkpoint
from tsattn.training.datamodule import ForecastData, run_seed
from tsattn.training.hardware import processor
from tsattn.training.task import ForecastTask

_PACKAGES = ("tsattn", "torch", "lightning", "numpy", "pandas")


def scores_of(errors: WindowErrors, windows: int) -> dict[str, Any]:
    """Return the ``test`` and ``as_published`` parts of a result.

    Args:
        errors: the metric after the test.
        windows: how many test windows there are.
    """
    scores = errors.compute()
    return {
        "test": {
            "mse": scores["mse"].item(),
            "mae": scores["mae"].item(),
            "per_channel_mse": _numbers(scores["per_channel_mse"].tolist()),
            "windows_scored": int(scores["windows"]),
            "windows_dropped": windows - int(scores["windows"]),
        },
        "as_published": {
            "mse": _number(scores["mse_first"].item()),
            "mae": _number(scores["mae_first"].item()),
            "windows_scored": int(scores["windows_first"]),
        },
    }


def floors(data: ForecastData, windows: Windows, first: int) -> dict[str, dict[str, float] | None]:
    """Score the trivial forecasts; None: the season exceeds the context.

    Args:
        data: the data.
        windows: of the part that is scored.
        first: how many of them are.
    """
    sizes = (data.channels, data.context, data.horizon)
    networks: dict[str, ForecastNetwork] = {
        "last_value": LastValue(*sizes),
        "window_mean": WindowMean(*sizes),
    }
    if data.season <= data.context:
        networks["seasonal_naive"] = SeasonalNaive(*sizes, season=data.season)
    scored = {name: _score(network, windows, first) for name, network in networks.items()}
    return {name: scored.get(name) for name in ("last_value", "seasonal_naive", "window_mean")}


def _score(
    network: ForecastNetwork, windows: Windows, first: int, batch_size: int = 256
) -> dict[str, float]:
    errors = WindowErrors(network.channels, sync_on_compute=False)
    with torch.inference_mode():
        for start in range(0, first, batch_size):
            batch = windows[start : min(start + batch_size, first)]
            forecast = forecast_of(network, batch).mean
            errors.update(forecast, batch.future_BHC, batch.index_B, batch.observed_future_BHC)
    scores = errors.compute()
    return {"mse": scores["mse"].item(), "mae": scores["mae"].item()}


def result_of(
    trainer: L.Trainer,
    task: ForecastTask,
    data: ForecastData,
    *,
    checkpoint: Path | None,
    moe: list[dict[str, Any]],
    recipes: list[str],
    limits: dict[str, Any],
    epochs: int,
    seconds: float,
) -> dict[str, Any]:
    """Collect a run's result after its test, ready for ``result.json``.

    Args:
        trainer: the trainer that ran the test.
        task: the task, its `test_errors` filled.
        data: the data.
        checkpoint: the checkpoint that was tested.
        moe: how the mixtures routed the test windows, a part for each layer; mostly none.
        recipes: the configuration files it was made from.
        limits: trainer settings that cut the run short; mostly none.
        epochs: epochs that training ran.
        seconds: wall time of training and validation.
    """
    panel, prepared = data.prepared.panel, data.prepared
    scored = int(task.test_errors.compute()["windows"])
    best = read_checkpoint(checkpoint)["epoch"] + 1 if checkpoint else None
    return {
        **scores_of(task.test_errors, len(prepared.test)),
        **({"quantiles": task.test_quantiles.compute()} if task.test_quantiles is not None else {}),
        "floors": floors(data, prepared.test, scored),
        "recipes": recipes,
        "training": task.describe() | {"batch_size": data.batch_size},
        "limits": limits,
        "network": describe_network(task.network),
        "dataset": {
            "name": panel.name,
            "sha256": panel.sha256,
            "rows": panel.num_rows,
            "channels": panel.num_channels,
            "series": panel.num_series,
            "borders": {
                series: border.parts()
                for series, border in list(zip(panel.ids, prepared.borders, strict=True))[:20]
            },
            "scaler": "mean and deviation (ddof 0) of the training rows, per series and channel",
            "treatment": describe_treatment(panel.treatment, panel.treated),
            "notes": list(prepared.notes),
        },
        "context": data.context,
        "horizon": data.horizon,
        "train_windows": len(prepared.train),
        "val_windows": len(prepared.val),
        "seed": run_seed(),
        "epochs": epochs,
        "best_epoch": best,
        "checkpoint_rule": "lowest validation loss"
        + (" over the batches that limits left" if limits else " over all validation windows"),
        "wall_seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in task.network.parameters() if p.requires_grad),
        **({"moe": moe} if moe else {}),
        **environment(trainer),
    }


def environment(trainer: L.Trainer) -> dict[str, Any]:
    """Return device, threads, precision, versions and commit."""
    device = trainer.strategy.root_device
    return {
        "device": processor(device),
        "devices": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "attention": _attention(trainer.lightning_module, device),
        "versions": {name: version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "commit": commit(),
    }


def _attention(task: nn.Module, device: torch.device) -> str | None:
    """Who computed the attention, of networks that have one."""
    impls = {m.impl for m in task.modules() if isinstance(m, MultiHeadActiveAttention)}
    chosen = {taken_by_auto(device) if impl == Impl.AUTO else impl for impl in impls}
    return ", ".join(sorted(chosen)) or None


def save_predictions(
    path: Path, index_W: Tensor, forecasts_WHC: Tensor, data: ForecastData, *, overwrite: bool
) -> None:
    """Store test forecasts and the truth, standardised and in original units.

    The npz file holds ``prediction``, ``target``, ``prediction_original`` and ``target_original``,
    all [windows, horizon, channels], ``series`` [windows] and ``channels``.

    Raises:
        ExistsError: the file exists and ``overwrite`` is off.
    """
    refuse_existing(path, overwrite=overwrite)
    windows = data.prepared.test
    targets_WHC = torch.cat([windows[part].truth() for part in index_W.split(256)])
    series_W = windows.series_W[index_W]
    to_original = data.prepared.scaler.to_original
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            prediction=forecasts_WHC.numpy(),
            target=targets_WHC.numpy(),
            prediction_original=to_original(forecasts_WHC, series_W).numpy(),
            target_original=to_original(targets_WHC, series_W).numpy(),
            series=np.array(data.prepared.panel.ids)[series_W.numpy()],
            channels=np.array(data.prepared.panel.channels),
        )


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise ExistsError where a file exists that nobody asked to replace."""
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists; choose another name, or replace it with --overwrite")


def as_json(result: Mapping[str, Any]) -> str:
    """Write a result as JSON; a NaN, which JSON has no word for, is an error."""
    return json.dumps(result, indent=2, allow_nan=False, default=str) + "\n"


def _numbers(values: list[float] | float) -> Any:
    """Return None for what is no number; torchmetrics makes one number of a single channel."""
    return [_number(value) for value in values] if isinstance(values, list) else _number(values)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@cache
def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, if it runs from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(  # noqa: S603 (no shell, and no word from outside)
                ["git", "-C", str(root), *words],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "tsattn"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("-dirty" if changes else "")
