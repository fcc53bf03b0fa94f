"""One cell, trained or gone on with in its folder of the user's cache, and the row it comes to."""

import csv
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from traceback import print_exc
from typing import Any

from filelock import FileLock, Timeout

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.failed import failed_row, now
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.grid.kept import write_weights
from tsattn.bench.grid.made_by import MadeBy, provenance
from tsattn.bench.grid.remember import Remember
from tsattn.bench.rows import SCHEMA, Row
from tsattn.errors import CheckpointError, CheckpointNotSavedError, TsattnError
from tsattn.memory import peak_resident_mib
from tsattn.training.command import run
from tsattn.training.folder import RunFolder


class CellBusyError(TsattnError):
    """Another process is at this cell."""


def run_cell(cell: Cell, folder: CellFolder) -> Row:
    """Train a cell, or go on where it was interrupted, and return its row.

    Whatever goes wrong in the run becomes a row with status ``failed``.

    Raises:
        CellBusyError: another process is at this cell.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=0):
            print(f"{now()}: process {os.getpid()}", flush=True)
            return _row_of(cell, folder)
    except Timeout as error:
        raise CellBusyError(f"{cell.name}: another process is at it") from error


def _row_of(cell: Cell, folder: CellFolder) -> Row:
    try:
        result = _result_of(cell, folder)
        row = _finished_row(cell, result, folder)
        if cell.words[0] != "fit":
            return row
        digest = write_weights(folder.weights, folder.run, cell.key)
        return replace(row, checkpoint_sha256=digest, val_mse=_val_mse(folder.run, result))
    except SystemExit as error:
        return failed_row(cell, f"the settings were refused ({error.code}): {_complaint(folder)}")
    except Exception as error:  # whatever it is, it is this cell's
        print_exc()
        return failed_row(cell, f"{type(error).__name__}: {error}")


def _result_of(cell: Cell, folder: CellFolder) -> Mapping[str, Any]:
    home = folder.run
    words = [*cell.words, "--trainer.logger", "false"]
    if cell.words[0] == "fit":
        words += ["--run_dir", str(home.path)]
    if home.last.is_file():
        try:
            return _run(cell, folder, [*words, "--ckpt_path", "last"])
        except CheckpointError as error:
            if isinstance(error, CheckpointNotSavedError) or isinstance(
                error.__cause__, (OSError, MemoryError)
            ):
                raise  # nothing is wrong with the one that is there
            print(f"starting anew: {error}")
    shutil.rmtree(home.path, ignore_errors=True)
    folder.made_by.unlink(missing_ok=True)
    return _run(cell, folder, words)


def _run(cell: Cell, folder: CellFolder, words: list[str]) -> Mapping[str, Any]:
    result = run(words, callbacks=[Remember(cell), MadeBy(folder)])
    if result is None:
        raise RuntimeError("the run ended without a result")
    return result


def _finished_row(cell: Cell, result: Mapping[str, Any], folder: CellFolder) -> Row:
    test, published = result["test"], result["as_published"]
    environment = {
        **{name: result[name] for name in ("device", "devices", "threads", "precision")},
        **{name: result[name] or "" for name in ("attention", "commit")},
        **{name: result["versions"][name] for name in ("tsattn", "torch", "lightning", "python")},
    }
    borders = result["dataset"]["borders"].values()
    trained = cell.words[0] == "fit"
    given: dict[str, Any] = {
        "schema": SCHEMA,
        **cell.key._asdict(),
        "status": "ok",
        "error": "",
        "recipe": ", ".join(result["recipes"]),
        "test_mse": test["mse"],
        "test_mae": test["mae"],
        "test_mse_as_published": published["mse"],
        "test_mae_as_published": published["mae"],
        "test_windows": test["windows_scored"],
        "test_windows_dropped": test["windows_dropped"],
        "windows_as_published": published["windows_scored"],
        "val_mse": None,
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"] if trained else 0,
        "max_epochs": cell.max_epochs,
        "checkpoint_rule": result["checkpoint_rule"] if trained else "",
        "data_sha256": result["dataset"]["sha256"],
        **{f"{part}_rows": _rows(borders, part) for part in ("train", "val", "test")},
        **{name: result["dataset"][name] for name in ("scaler",)},
        **{name: result[name] for name in _AS_THEY_ARE},
        **(provenance(folder, environment) if trained else environment),
        "peak_mib": peak_resident_mib(),
        "checkpoint": "",
        "checkpoint_sha256": "",
        "finished": now(),
    }
    return Row(**given)


_AS_THEY_ARE = ("context", "horizon", "parameters", "wall_seconds")


def _rows(borders: Any, part: str) -> str:
    """Write where a part begins and ends in each series, the same ends once."""
    return ";".join(dict.fromkeys(f"{ends[part][0]}:{ends[part][1]}" for ends in borders))


def _val_mse(home: RunFolder, result: Mapping[str, Any]) -> float:
    with home.metrics.open(newline="", encoding="utf-8") as file:
        epochs = {int(row["epoch"]): row for row in csv.DictReader(file)}
    return float(epochs[result["best_epoch"]]["val/mse"])


def _complaint(folder: CellFolder) -> str:
    """Return the last error that was printed; the parser says what is wrong only so."""
    if not folder.log.is_file():
        return "see what it printed"
    lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"see {folder.log}"
