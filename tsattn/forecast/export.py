"""From a run to the exchange format: written beside its place, and moved there once it is whole."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tsattn.errors import CheckpointError, ConfigError, ExistsError
from tsattn.forecast.card import model_card
from tsattn.forecast.intervals import intervals_of
from tsattn.forecast.trained import trained_of
from tsattn.training.artifact import (
    CARD_FILE,
    ONNX_FILE,
    UNFINISHED,
    is_artifact,
    require_export,
    write_artifact,
)
from tsattn.training.checkpoint import load_trained
from tsattn.training.folder import RunFolder

_REPLACED = "-replaced"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        fingerprint: checksum of the record, which covers those of weights and graph.
        onnx: what the graph takes and returns, and how it was checked; None without one.
    """

    folder: Path
    fingerprint: str
    onnx: dict[str, Any] | None


def export(
    source: Path, out: Path, *, with_onnx: bool = False, overwrite: bool = False
) -> Exported:
    """Write the best checkpoint of a run, or a checkpoint's file, as a folder of the format.

    The folder gets ``model.safetensors``, ``record.json``, the model card ``README.md`` and, where
    asked for, ``model.onnx``. `tsattn.Forecaster.load` takes it in the place of the run, and
    forecasts exactly the same.

    Args:
        source: a run folder, or a checkpoint's file.
        out: the folder to write.
        with_onnx: also write the network as an ONNX graph.
        overwrite: replace a folder that is an export.

    Raises:
        ExistsError: ``out`` exists, and may not be replaced.
        CheckpointError: the checkpoint cannot be read, or says nothing of its data.
        ConfigError: ``source`` is an export, or the network cannot become a graph.
        MissingExtraError: packages of the extra ``onnx`` are missing.
    """
    if with_onnx:
        from tsattn.forecast.onnx_graph import require_onnx

        require_onnx()
    _require_free(source, out, overwrite=overwrite)
    file, result = _source(source)
    network, record = load_trained(file)
    trained = trained_of(record, network, str(file))
    intervals_of(record, network, trained, str(file))  # refuses what is damaged
    record, result = _without_places(record, "refit", "of"), _without_places(result, "refit_of")
    _clear_interrupted(out)
    folder = out.with_name(f".{out.name}{UNFINISHED}-{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        onnx = None
        if with_onnx:
            from tsattn.forecast.onnx_graph import write_onnx

            onnx = write_onnx(folder / ONNX_FILE, network, trained).record()
        card = model_card(out.name, record, trained, result, onnx)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        more: dict[str, Any] = {"result": result, "versions": _versions()}
        if onnx:
            more["onnx"] = onnx
        fingerprint = write_artifact(folder, record, network.state_dict(), more)
        _flush(folder)
        _require_free(source, out, overwrite=overwrite)  # that took its time
        _move(folder, out)
        _clear_interrupted(out, replaced_too=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(out, fingerprint, onnx)


def _source(source: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the checkpoint, and the result of its run where there is one."""
    if not source.is_dir():
        return source, None
    if is_artifact(source):
        raise ConfigError(f"{source} is an export already; copy the folder")
    run = RunFolder(source)
    if not run.best.is_file():
        raise CheckpointError(
            f"{source} is a folder without {run.best.relative_to(source)}; expected a run folder "
            "of tsattn fit, or a checkpoint's file"
        )
    if not run.result.is_file():
        return run.best, None
    try:
        result = run.read_result()
        test = result["test"] if "refit_of" not in result else result["validated"]["test"]
        if not {"mse", "mae", "windows_scored"} <= test.keys():
            raise ValueError("it has no scores")
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{run.result} is no result of a run ({error}); export the checkpoint alone: {run.best}"
        ) from error
    return run.best, result


def _without_places(said: Any, *path: str) -> Any:
    """Return a copy in which the folder of another run is only its name."""
    name, *below = path
    if not isinstance(said, Mapping) or name not in said:
        return said
    inner = _without_places(said[name], *below) if below else Path(str(said[name])).name
    return {**said, name: inner}


def _require_free(source: Path, out: Path, *, overwrite: bool) -> None:
    if UNFINISHED in out.name or out.name in ("", ".", ".."):
        raise ConfigError(f"--out {out} is no name for a folder; choose another")
    if out.resolve() == source.resolve() or out.resolve() in source.resolve().parents:
        raise ConfigError(f"--out {out} holds what is to be exported; write somewhere else")
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise ExistsError(f"{out} exists and is no export; choose another --out")
    if not any(out.iterdir()):
        return
    require_export(out)
    if not overwrite:
        raise ExistsError(f"{out} exists; choose another --out, or replace it with --overwrite")


def _clear_interrupted(out: Path, *, replaced_too: bool = False) -> None:
    """Remove what exports to the same place left behind whose process is no more.

    A folder that was moved aside to be replaced stays until there is a new one.
    """
    prefix = f".{out.name}{UNFINISHED}-"
    for left in out.parent.glob(f"{escape(prefix)}*"):
        process = left.name.removeprefix(prefix)
        if replaced_too:
            process = process.removesuffix(_REPLACED)
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(folder: Path) -> None:
    """Let everything reach the disk before the folder gets its name."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _move(folder: Path, out: Path) -> None:
    """Give a folder its name; one that is replaced is moved aside first and deleted last."""
    if not out.exists():
        folder.replace(out)
        return
    aside = out.with_name(f".{out.name}{UNFINISHED}-{os.getpid()}{_REPLACED}")
    out.replace(aside)
    try:
        folder.replace(out)
    except OSError:
        aside.replace(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _versions() -> dict[str, str]:
    names = ("tsattn", "torch", "safetensors")
    return {name: version(name) for name in names} | {"torch": torch.__version__}
