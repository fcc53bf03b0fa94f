"""The exchange format: a folder of safetensors and JSON that carries all of a trained network.

``record.json`` holds what a checkpoint's record holds, in plain values; tensors among them lie with
the weights in ``model.safetensors``, and a reference stands in their place. It also has type and
shape of every tensor, length and checksum of every file, and a checksum of itself. ``README.md`` is
the model card, which people may edit; ``model.onnx`` is there where it was asked for.
"""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsattn.errors import CheckpointError, ExistsError
from tsattn.training.tensor_file import Digest, read_bytes, read_tensors, write_tensors

FORMAT = 1
RECORD_FILE = "record.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
CARD_FILE = "README.md"
UNFINISHED = ".unfinished"
"""What a folder's name contains until everything in it is there."""

_FILES = (WEIGHTS_FILE, ONNX_FILE)
_NAMES = (RECORD_FILE, CARD_FILE, *_FILES)
_LARGEST_RECORD = 1 << 26
_REFERENCE = "tensor in model.safetensors"
_PLAIN = (str, int, float, bool, type(None))
_DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16,
                  torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
}  # fmt: skip
"""Every type that a tensor of an export may have."""


def is_artifact(path: Path) -> bool:
    """Whether a folder is an export, whole or not."""
    return path.is_dir() and (path / RECORD_FILE).exists()


def require_export(folder: Path) -> None:
    """Refuse a folder that is not, as a whole, an export, so that it may be deleted.

    A record that somebody else wrote is none, nor is one cut short; a newer format or weights that
    are damaged do not matter.

    Raises:
        ExistsError: with what is in the way.
    """
    others = sorted(one.name for one in folder.iterdir() if one.name not in _NAMES or one.is_dir())
    if not _is_record(folder / RECORD_FILE):
        raise ExistsError(f"{folder} exists and is no export; choose another --out")
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise ExistsError(
            f"{folder} is an export that also holds {', '.join(others[:5])}{more}; move what is "
            "yours away, or choose another --out"
        )


def _is_record(file: Path) -> bool:
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_RECORD:
            return False
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= {"format", "record", "files", "checksum"}


def write_artifact(
    folder: Path,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> str:
    """Write weights and record into a folder; the record comes last.

    Args:
        folder: exists, and has the other files already.
        record: of a checkpoint.
        weights: of its network, by their names within it.
        more: what else ``record.json`` says, in plain values: ``result``, ``versions``, ``onnx``.

    Returns:
        The checksum of the record, which covers those of the files: the export's fingerprint.

    Raises:
        CheckpointError: the record holds something else than plain values and tensors.
    """
    tensors = {f"network.{name}": tensor for name, tensor in weights.items()}
    plain = _without_tensors(record, "record", tensors)
    digests = {WEIGHTS_FILE: write_tensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})}
    if (folder / ONNX_FILE).is_file():
        digests[ONNX_FILE] = Digest.of((folder / ONNX_FILE).read_bytes())
    content = {
        "format": FORMAT,
        "record": plain,
        "tensors": {
            name: {"dtype": str(one.dtype).removeprefix("torch."), "shape": list(one.shape)}
            for name, one in sorted(tensors.items())
        },
        "files": {name: digest._asdict() for name, digest in digests.items()},
        **more,
    }
    content["checksum"] = _checksum(content)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")
    return content["checksum"]


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``record.json`` says, checked against its own checksum.

    Raises:
        CheckpointError: no export, an unfinished one, or a record that is damaged, changed or of a
            newer format.
    """
    file = folder / RECORD_FILE
    if UNFINISHED in folder.name:
        raise CheckpointError(f"{folder} is an export that was interrupted; export again")
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is a folder without {RECORD_FILE}; expected one that tsattn export wrote"
        )
    if file.stat().st_size > _LARGEST_RECORD:
        raise CheckpointError(f"{file} has more than {_LARGEST_RECORD >> 20} MiB; it is no record")
    try:
        content = json.loads(read_bytes(file).decode("utf-8"), parse_constant=_no_number)
        stated = content["checksum"]
        version = content["format"]
        intact = stated == _checksum(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut short ({type(error).__name__}: {error}); copy or export it "
            "again"
        ) from error
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{file} has format {version}, this version reads up to {FORMAT}; upgrade tsattn"
        )
    if not intact:
        raise CheckpointError(
            f"{file} was changed after it was written: it does not match its checksum; copy or "
            "export it again"
        )
    return content


def read_artifact(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an export's record and the weights of its network, as `write_artifact` took them.

    Lengths and checksums of the files are compared with ``record.json`` first, then name, type and
    shape of every tensor; nothing is executed, and no name in a record leads to another file.

    Raises:
        CheckpointError: as `read_record`, or files or tensors that are not what the record says.
    """
    content = read_record(folder)
    try:
        digests, stated = _stated(content)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise _no_record(folder, error) from error
    if ONNX_FILE in digests and (folder / ONNX_FILE).exists():
        read_bytes(folder / ONNX_FILE, digests[ONNX_FILE])
    tensors, _ = read_tensors(folder / WEIGHTS_FILE, digests[WEIGHTS_FILE])
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if found != stated:
        differing = sorted(n for n in found.keys() | stated.keys() if found.get(n) != stated.get(n))
        raise CheckpointError(
            f"{folder}: {', '.join(differing[:5])} in {WEIGHTS_FILE} differ from what "
            f"{RECORD_FILE} says; copy or export it again"
        )
    try:
        record = _with_tensors(content["record"], tensors)
        if not record["network"].keys() >= {"class", "arguments", "not_stored"}:
            raise ValueError("it describes no network")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _no_record(folder, error) from error
    prefix = "network."
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return record, weights


def _stated(
    content: Mapping[str, Any],
) -> tuple[dict[str, Digest], dict[str, tuple[torch.dtype, torch.Size]]]:
    """Return length and checksum of every file, and type and shape of every tensor."""
    digests = {name: Digest(**one) for name, one in content["files"].items()}
    if WEIGHTS_FILE not in digests or set(digests) - set(_FILES):
        raise ValueError(f"it names the files {', '.join(digests)}")
    stated: dict[str, tuple[torch.dtype, torch.Size]] = {}
    for name, one in content["tensors"].items():
        dtype, shape = _DTYPES[one["dtype"]], torch.Size(one["shape"])
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > digests[WEIGHTS_FILE].size:
            raise ValueError(f"{name} of {list(shape)} is larger than the file")
        stated[name] = (dtype, shape)
    return digests, stated


def _no_record(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{folder / RECORD_FILE} is no record of a network ({type(error).__name__}: {error}); "
        "export it again"
    )


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return plain values; tensors go to ``tensors`` and leave a reference."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_REFERENCE: name}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise CheckpointError(f"{name} has keys that are no text, and cannot be exported")
        return {key: _without_tensors(one, f"{name}.{key}", tensors) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(one, f"{name}.{i}", tensors) for i, one in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckpointError(f"{name} is {value}, which JSON has no word for")
    if isinstance(value, _PLAIN):
        return value
    raise CheckpointError(f"{name} is a {type(value).__name__}, which cannot be exported")


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `_without_tensors`."""
    if isinstance(value, list):
        return [_with_tensors(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_REFERENCE}:
        return tensors[value[_REFERENCE]]
    return {key: _with_tensors(one, tensors) for key, one in value.items()}


def _checksum(content: Mapping[str, Any]) -> str:
    """Return the sha256 of everything but the checksum itself, however it is laid out."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode("utf-8")).hexdigest()


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
