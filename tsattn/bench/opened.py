"""Finished runs, opened to be scored again: a run folder, or a kept checkpoint of a row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import yaml
from lightning.pytorch.callbacks import Callback

from tsattn.bench.grid.kept import read_weights
from tsattn.bench.peer_networks import HuggingFacePatchTST, NeuralforecastPatchTST
from tsattn.data import CATALOG
from tsattn.errors import CheckpointError, ConfigError, DataError
from tsattn.models import ForecastNetwork
from tsattn.training.checkpoint import build_network, load_trained
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder
from tsattn.training.result import scores_of
from tsattn.training.task import ForecastTask

_PEERS: Mapping[str, type[ForecastNetwork]] = {
    peer.__name__: peer for peer in (NeuralforecastPatchTST, HuggingFacePatchTST)
}
"""What a kept checkpoint may name beside `tsattn.models.NETWORKS`; nothing else is looked up."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A trained network and the data that it is scored on.

    Attributes:
        name: how a person called the run.
        seed: its seed; None where it had none.
        network: with its best weights.
        data: its data, read when first needed.
        precision: as the trainer names it.
    """

    name: str
    seed: int | None
    network: ForecastNetwork
    data: ForecastData
    precision: str


def open_run(folder: Path, root: Path | None = None) -> Opened:
    """Open a run folder: its best checkpoint, and the data of its ``config.yaml``.

    Args:
        folder: the run folder.
        root: folder that is searched first for catalog files, in place of the run's own.

    Raises:
        ConfigError: no run folder, or one without settings of its data.
        CheckpointError: no best checkpoint, or one that cannot be read.
    """
    run = RunFolder(folder)
    if not run.config.is_file():
        raise ConfigError(
            f"{folder} is no run folder: it has no {run.config.name}; give the folder that tsattn "
            "fit wrote, as --run_dir named it"
        )
    try:
        settings: Any = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        trainer, arguments = settings["trainer"], dict(settings["data"])
        seed = settings["seed_everything"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{run.config} holds no settings of a run: {error!r}") from error
    network, record = load_trained(run.best)
    if record.get("refit"):
        raise ConfigError(
            f"{folder} was trained on all rows, test rows included, so it has no test score; take "
            f"{record['refit']['of']}, which was validated"
        )
    return Opened(
        name=str(folder),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        network=network,
        data=_data(arguments, root, run.config),
        precision=str(trainer.get("precision") or "32-true"),
    )


def open_kept(path: Path, precision: str, root: Path | None = None) -> Opened:
    """Open a checkpoint that the grid kept as safetensors.

    Args:
        path: the file.
        precision: of its row.
        root: folder that is searched first for catalog files.

    Raises:
        CheckpointError: a damaged or foreign file, or weights that do not fit.
        DataError: the data are not here, or are others than it was trained on.
    """
    weights, record = read_weights(path)
    network = _network(record["network"], path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit the network: {error}") from error
    data = _data(dict(record["data"]), root, path)
    require_same_data(data, record["data_sha256"], str(path))
    key = record["key"]
    name = "/".join(str(key[part]) for part in ("model", "dataset", "value_activation", "seed"))
    return Opened(name, key["seed"], network.eval(), data, precision)


def require_same_data(data: ForecastData, sha256: str, what: str) -> None:
    """Refuse data whose file is another one, line ends aside.

    Raises:
        DataError: with both hashes.
    """
    panel = data.prepared.panel
    variants = CATALOG[panel.name].sha256.values() if panel.name in CATALOG else ()
    if sha256 != panel.sha256 and not {sha256, panel.sha256} <= set(variants):
        raise DataError(
            f"{what} was trained on data with sha256 {sha256[:12]}, {panel.path} has "
            f"{panel.sha256[:12]}; give the folder of the right file with --root"
        )


def test(opened: Opened, *callbacks: Callback) -> dict[str, Any]:
    """Score all test windows as `tsattn test` does.

    Returns:
        The ``test`` and ``as_published`` parts of a result.
    """
    task = ForecastTask(opened.network)
    trainer = L.Trainer(
        devices=1,
        precision=opened.precision,  # pyright: ignore[reportArgumentType]
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(task, opened.data, verbose=False)
    return scores_of(task.test_errors, len(opened.data.prepared.test))


def _network(description: Mapping[str, Any], path: Path) -> ForecastNetwork:
    """Build a network of ours, or one of those that ours are compared with."""
    peer = _PEERS.get(description["class"])
    if peer is None:
        return build_network(description)
    try:
        return peer(**description["arguments"])
    except TypeError as error:
        raise CheckpointError(f"{path}: {peer.__name__} cannot be built: {error}") from error


def _data(arguments: dict[str, Any], root: Path | None, where: Path) -> ForecastData:
    chosen = root or arguments.get("root")
    arguments["root"] = None if chosen is None else Path(chosen)
    try:
        return ForecastData(**arguments)
    except TypeError as error:
        unknown = re.sub(r".*__init__\(\) ", "", str(error))
        raise ConfigError(
            f"{where} holds settings of data that are not known: {unknown}"
        ) from error
