"""Calibration of a run's best checkpoint on its validation windows, and where it is kept."""

from pathlib import Path
from typing import Any

import torch

from tsattn.data.amounts import listed
from tsattn.errors import ConfigError, DataError, ExistsError
from tsattn.files import write_atomically
from tsattn.training.checkpoint import RECORD, load_network, read_checkpoint
from tsattn.training.conformal import (
    RECORD_KEY,
    Calibration,
    calibrate,
    summary_of,
    without_intervals,
)
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder
from tsattn.training.reopened import data_of, settings_of
from tsattn.training.result import as_json
from tsattn.training.saving import SafeCheckpointIO
from tsattn.training.task import ForecastTask


def calibrate_task(
    task: ForecastTask,
    data: ForecastData,
    *,
    limit: int | float | None = None,
    device: torch.device | None = None,
) -> Calibration:
    """Calibrate a trained network on the validation windows, in float32 as forecasts are.

    Args:
        task: the task, with the weights to calibrate.
        data: the data that it was trained on.
        limit: the trainer's ``limit_val_batches``: a number of batches, or a share of them.
        device: where to compute; the task is on the CPU afterwards.
    """
    windows, size = data.prepared.val, data.eval_batch_size
    most = None
    if isinstance(limit, float):
        most = max(1, int(limit * -(-len(windows) // size))) * size
    elif limit is not None:
        most = limit * size
    task.float().eval().to(device or "cpu")
    try:
        return calibrate(
            task,
            windows,
            quantiles=task.network.quantiles,
            series=data.prepared.panel.num_series,
            most=most,
            device=device,
        )
    finally:
        task.cpu()


def store(path: Path, calibration: Calibration) -> None:
    """Add a calibration to a checkpoint, whose file is replaced once the new one is whole."""
    content = read_checkpoint(path)
    content[RECORD][RECORD_KEY] = calibration.record()
    SafeCheckpointIO().save_checkpoint(content, path)


def calibrate_best(
    task: ForecastTask,
    data: ForecastData,
    best: Path,
    *,
    limit: int | float | None,
    device: torch.device,
) -> dict[str, Any]:
    """Calibrate as `calibrate_task` does, keep it in a checkpoint, and return its summary."""
    calibration = calibrate_task(task, data, limit=limit, device=device)
    store(best, calibration)
    panel = data.prepared.panel
    lacking = without_intervals(
        calibration, panel.ids if panel.layout == "long" else panel.channels
    )
    if lacking:
        why = "" if limit is None else f" (--trainer.limit_val_batches {limit})"
        print(
            f"note: {listed(lacking, repr)}: too few validation windows{why}, so "
            "there are no intervals of them"
        )
    return summary_of(calibration)


def calibrate_run(
    folder: Path, *, root: Path | None = None, overwrite: bool = False
) -> Calibration:
    """Calibrate the best checkpoint of a run that has none, with the data of its ``config.yaml``.

    What ``result.json`` says of it is written there as at the end of a training.

    Args:
        folder: the run folder.
        root: folder that is searched first for catalog files, in place of the run's own.
        overwrite: replace the calibration that is there.

    Raises:
        ConfigError: no run folder, or a result that is none.
        CheckpointError: no best checkpoint, or one that cannot be read.
        ExistsError: it is calibrated already.
        DataError: the data are not here, or are others than it was trained on.
    """
    run = RunFolder(folder)
    settings = settings_of(run)
    record = read_checkpoint(run.best)[RECORD]
    if record.get("refit"):
        raise ConfigError(
            f"{folder} was trained on all rows, so no validation windows are left; its intervals "
            "are those of the run that it was refitted from: calibrate that one, and refit again"
        )
    if record.get(RECORD_KEY) is not None and not overwrite:
        raise ExistsError(
            f"{run.best} is calibrated already; replace that with --overwrite, or leave it"
        )
    result = run.read_result() if run.result.is_file() else None
    data = data_of(settings, root)
    trained, panel = record.get("data") or {}, data.prepared.panel
    if trained.get("sha256") != panel.sha256:
        raise DataError(
            f"{run.best} was trained on data with sha256 {str(trained.get('sha256'))[:12]}, "
            f"{panel.path} has {panel.sha256[:12]}; bring the file that it was trained on"
        )
    calibration = calibrate_task(ForecastTask(load_network(run.best)), data)
    store(run.best, calibration)
    if result is not None:
        result["conformal"] = summary_of(calibration)
        write_atomically(run.result, as_json(result))
    return calibration
