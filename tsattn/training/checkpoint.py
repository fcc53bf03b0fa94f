"""Checkpoints that carry what a forecast needs, and that are safe to open.

Beside Lightning's own state a checkpoint holds a record under the key `RECORD`: which network,
built with which arguments, trained on which data with which scaler. The network's class is a name
from the fixed table `tsattn.models.NETWORKS`; import paths in a file are never followed, and
nothing pickled is ever executed.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tsattn.errors import CheckpointError
from tsattn.models import NETWORKS, ForecastNetwork
from tsattn.models.base import LATER_OPTIONS
from tsattn.nn.parts import build_part, describe_part
from tsattn.training.artifact import is_artifact, read_artifact

RECORD = "tsattn"
FORMAT = 1

_DATA_OF_A_RUN = (
    *("name", "sha256", "channels", "borders", "calendar", "context", "horizon", "batch_size"),
    *("covariates", "treatment"),
)
_PLAIN = (str, int, float, bool, type(None))
_LARGEST = 10**7  # of any size in a record
_FREE_TO_DIFFER = ("attention_impl", "computing", "dropout", "head_dropout", "recompute")


def describe_network(network: ForecastNetwork) -> dict[str, Any]:
    """Return the network's name in `NETWORKS` and the arguments that build it again.

    A part given as what builds it (``feedforward``) is described in its turn, by its name in
    `tsattn.nn.parts.PARTS`. An argument that is neither that nor a plain value (a callable as
    ``value_activation``) is listed under ``not_stored``: such a checkpoint needs the network to be
    given when it is opened.
    """
    arguments: dict[str, Any] = {}
    given = {k: v for k, v in network.init_args.items() if v != LATER_OPTIONS.get(k, ...)}
    for name, value in given.items():
        part = describe_part(value) if callable(value) else None
        if part is not None or isinstance(value, _PLAIN):
            arguments[name] = value if part is None else part
        elif isinstance(value, (list, tuple)) and all(isinstance(one, _PLAIN) for one in value):
            arguments[name] = list(value)
    return {
        "class": type(network).__name__,
        "arguments": arguments,
        "not_stored": sorted(given.keys() - arguments.keys()),
    }


def build_network(description: Mapping[str, Any]) -> ForecastNetwork:
    """Build the network that `describe_network` described, with fresh weights.

    Raises:
        CheckpointError: a class that is not in the table, or arguments that cannot be stored.
    """
    name = description["class"]
    if name not in NETWORKS:
        raise CheckpointError(
            f"the checkpoint's network {name!r} is not one of {', '.join(NETWORKS)}; "
            "build a network of your own and give it to load_network(path, network)"
        )
    if description["not_stored"]:
        raise CheckpointError(
            f"the checkpoint's {name} was built with {', '.join(description['not_stored'])} that "
            "cannot be stored in a file (a callable?); build it and give it to "
            "load_network(path, network)"
        )
    try:
        arguments: dict[str, Any] = {
            key: build_part(value) if isinstance(value, Mapping) else value
            for key, value in description["arguments"].items()
        }
        return NETWORKS[name](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's {name} cannot be built: {error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this library onto the CPU, executing nothing from it.

    Raises:
        CheckpointError: no such file, a damaged or foreign one, or one of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}{_neighbours(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            _require_intact(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a checkpoint that can be read: damaged, "
            f"cut short, or holding more than plain data ({_reason(error)}); take another one"
        ) from error
    record = content.get(RECORD) if isinstance(content, dict) else None
    if not isinstance(record, dict):
        raise CheckpointError(
            f"{path} was not written by tsattn: it has no {RECORD!r} record; weights of the "
            "published code are read by tsattn.interop.published"
        )
    if not isinstance(record.get("format"), int) or not _is_whole(content):
        raise CheckpointError(f"{path} is not a whole checkpoint of tsattn; take another one")
    _require_known(record["format"], path)
    return content


def _require_known(version: Any, path: Path) -> None:
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, this version reads up to {FORMAT}; upgrade tsattn"
        )


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or a folder that ``tsattn export`` wrote in the same form."""
    if not path.is_dir():
        return read_checkpoint(path)
    record, weights = read_artifact(path)
    _require_known(record.get("format"), path)
    return {RECORD: record, "state_dict": {f"network.{n}": one for n, one in weights.items()}}


def load_network(path: str | Path, network: ForecastNetwork | None = None) -> ForecastNetwork:
    """Build a checkpoint's network and load its weights; it comes back in evaluation mode.

    Args:
        path: the checkpoint, or a folder that ``tsattn export`` wrote.
        network: a network to load the weights into, for one whose class or arguments a checkpoint
            cannot name (a class of your own, a callable as ``value_activation``).

    Raises:
        CheckpointError: the checkpoint cannot be read, cannot be built from its record, or holds
            another network than the one given.
    """
    return load_trained(path, network)[0]


def load_trained(
    path: str | Path, network: ForecastNetwork | None = None
) -> tuple[ForecastNetwork, dict[str, Any]]:
    """Return what `load_network` does, and the checkpoint's record of network, data and training.

    Raises:
        CheckpointError: as `load_network`.
    """
    content = _read(Path(path))
    if network is None:
        _require_weights_to_fit(content, Path(path))
        network = build_network(content[RECORD]["network"])
    else:
        require_same_network(content, network, Path(path))
    _load(network, content, Path(path))
    return network.eval(), content[RECORD]


def _require_weights_to_fit(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a record whose network is larger than its weights, before memory is taken for it."""
    description, stored = content[RECORD]["network"], weights_of(content)
    try:
        for name, value in _flat(description["arguments"]).items():
            most = len(stored) if name.endswith("layers") else _LARGEST
            if isinstance(value, int) and abs(value) > most:
                raise ValueError(f"{name} {value} is more than the weights allow")
        with torch.device("meta"):
            sketch = build_network(description)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: its network cannot be built: {error}") from error
    needed = {name: value.shape for name, value in sketch.state_dict().items()}
    found = {name: getattr(value, "shape", None) for name, value in stored.items()}
    differing = sorted(n for n in needed.keys() | found.keys() if needed.get(n) != found.get(n))
    if differing:
        raise CheckpointError(
            f"{path}: the weights do not fit the network its record describes: "
            f"{', '.join(differing[:5])} differ; take another checkpoint"
        )


def load_weights(network: ForecastNetwork, path: str | Path | None) -> dict[str, Any]:
    """Load a checkpoint's weights into a network that exists; without a path, do nothing.

    Returns:
        What the checkpoint's record says of the data it was trained on.

    Raises:
        CheckpointError: the checkpoint cannot be read, or holds another network.
    """
    if path is None:
        return {}
    content = _read(Path(path))
    require_same_network(content, network, Path(path))
    _load(network, content, Path(path))
    return content[RECORD].get("data") or {}


def _load(network: ForecastNetwork, content: Mapping[str, Any], path: Path) -> None:
    try:
        network.load_state_dict(weights_of(content))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit the network: {error}") from error


def weights_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of a checkpoint's network by their names within it."""
    prefix = "network."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(prefix)
    }


def require_same_network(content: Mapping[str, Any], network: ForecastNetwork, path: Path) -> None:
    """Refuse a checkpoint of another network, naming what differs.

    Raises:
        CheckpointError: another class, other arguments, or weights of another shape.
    """
    theirs, ours = content[RECORD]["network"], describe_network(network)
    if theirs["class"] != ours["class"]:
        raise CheckpointError(
            f"{path} holds a {theirs['class']}, the configuration describes a {ours['class']}"
        )
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    stored = {name: getattr(value, "shape", None) for name, value in weights_of(content).items()}
    differing = differences(theirs["arguments"], ours["arguments"])
    if differing or shapes != stored:
        raise CheckpointError(
            f"{path} holds another {ours['class']} than the configuration describes: "
            + ("; ".join(differing) or "its weights have other names or shapes")
        )


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Say in which arguments that decide what a network computes two descriptions differ."""
    then, now = _flat(theirs), _flat(ours)
    return [
        f"{name} {then.get(name)!r} instead of {now.get(name)!r}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name) and name.rpartition(".")[2] not in _FREE_TO_DIFFER
    ]


def _flat(arguments: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return arguments by dotted name, those of described parts behind the name of the part."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            flat[prefix + name] = value["class"]
            flat |= _flat(value["arguments"], f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def require_same_run(
    content: Mapping[str, Any], data: Mapping[str, Any], training: Mapping[str, Any], path: Path
) -> None:
    """Refuse to go on with a run under other data or settings than it began with.

    Args:
        content: the checkpoint.
        data: what the data module describes now.
        training: what the task describes now.
        path: the checkpoint's file, for the message.

    Raises:
        CheckpointError: with everything that differs.
    """
    record = content[RECORD]
    differing = [
        f"{name} {now.get(name)!r} instead of {then[name]!r}"
        for then, now, names in (
            (record.get("data") or {}, data, _DATA_OF_A_RUN),
            (record.get("training") or {}, training, tuple(training)),
        )
        for name in names
        if name in then and then[name] != now.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to a run with other settings: {'; '.join(differing)}. Resume with the "
            "run's own config.yaml, or start anew in another --run_dir"
        )


def _require_intact(path: Path) -> None:
    """Compare every part of the file with its checksum, which torch does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("its parts are compressed, which torch never does")
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")


def _reason(error: Exception) -> str:
    """Return what is wrong in one line, without torch's advice to load the file unsafely."""
    found = re.search(r"WeightsUnpickler error: (.*)", str(error))
    lines = (found.group(1) if found else str(error)).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether all that is read later is there."""
    network = content[RECORD].get("network")
    return (
        isinstance(network, dict)
        and network.keys() >= {"class", "arguments", "not_stored"}
        and isinstance(network["arguments"], dict)
        and isinstance(content.get("state_dict"), dict)
        and isinstance(content.get("epoch"), int)
        and "pytorch-lightning_version" in content
    )


def _neighbours(path: Path) -> str:
    if is_artifact(path):
        return ": it is an export, for tsattn forecast and backtest; give the run's checkpoint"
    folder = path.parent
    found = sorted(p.name for p in folder.glob("*.ckpt")) if folder.is_dir() else []
    return f"; {folder} has {', '.join(found)}" if found else ""
