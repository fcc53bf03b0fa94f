"""Weights of finished cells: safetensors with what is needed to build and score them again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from tsattn.bench.rows import Key
from tsattn.errors import CheckpointError
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.folder import RunFolder
from tsattn.training.tensor_file import read_tensors, write_bytes, write_tensors

FORMAT = 1
LARGEST_MB = 1.0
ALL_MB = 40.0
MB = 1_000_000
_OF_A_MACHINE = ("root",)


def write_weights(path: Path, run: RunFolder, key: Key) -> str:
    """Write the best checkpoint of a run as safetensors and return the file's sha256.

    The same weights and settings give the same bytes: there is no date and no folder in them.
    """
    content = read_checkpoint(run.best)
    settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    data = {k: v for k, v in settings["data"].items() if k not in _OF_A_MACHINE}
    if Path(str(data["dataset"])).is_absolute():
        data["dataset"] = Path(data["dataset"]).name
    record = {
        "format": FORMAT,
        "key": key._asdict(),
        "network": content[RECORD]["network"],
        "data": data,
        "data_sha256": content[RECORD]["data"]["sha256"],
        "epoch": content["epoch"] + 1,
    }
    weights = {
        name.removeprefix("network."): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith("network.")
    }
    return write_tensors(path, weights, {RECORD: json.dumps(record, sort_keys=True)}).sha256


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the weights of a kept checkpoint and its record.

    The record holds ``key``, ``network`` (for `tsattn.training.checkpoint.build_network`), ``data``
    (the arguments of `tsattn.training.ForecastData`), ``data_sha256`` and ``epoch``.

    Raises:
        CheckpointError: no such file, a damaged or foreign one, or one of a newer format.
    """
    weights, note = read_tensors(Path(path))
    text = note.get(RECORD)
    if text is None:
        raise CheckpointError(f"{path} was not written by tsattn bench run: it has no record")
    record = json.loads(text)
    if record["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {record['format']}, this version reads up to {FORMAT}; "
            "upgrade tsattn"
        )
    return weights, record


def keep(weights: Path | bytes, results: Path, key: Key) -> str:
    """Write small weights beside the results; return the file's name, empty where they stay away.

    Args:
        weights: the file, or its content.
        results: folder of the results; all that is kept below it has at most `ALL_MB` megabytes.
        key: of the cell.
    """
    folder = results / "checkpoints" / key.model
    target = folder / f"{key.name}.safetensors"
    content = weights if isinstance(weights, bytes) else weights.read_bytes()
    size = len(content)
    others = (file for file in folder.parent.rglob("*.safetensors") if file != target)
    if size > LARGEST_MB * MB or size + sum(f.stat().st_size for f in others) > ALL_MB * MB:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content)
    return target.name
