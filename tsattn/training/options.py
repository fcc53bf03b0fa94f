"""What ``tsattn fit`` takes beside Lightning's own options, and what of it a recipe keeps."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser

from tsattn.models.base import LATER_OPTIONS
from tsattn.training.callbacks import MONITOR
from tsattn.training.recipes import made_from

_OF_THE_DATA = (
    "channels",
    "context",
    "horizon",
    "calendar_features",
    "season",
    "known_covariates",
    "past_covariates",
    "static_covariates",
)
_COLUMNS = ("targets", "known_future", "past", "static")
_OF_ONE_CALL = (
    "calibrate",
    "config",
    "ckpt_path",
    "estimate",
    "overwrite",
    "save_predictions",
    "run_dir",
    "verbose",
)


def add_options(parser: LightningArgumentParser) -> None:
    """Add the run folder, early stopping, and the sizes that flow from data to network."""
    parser.add_argument(
        "--run_dir",
        type=Path | None,
        help="folder of this run; by default a fresh one below runs/",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing run or output file"
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="with fit: measure a few steps, say how long the run will take, and write nothing",
    )
    parser.add_argument(
        "--save_predictions",
        type=Path | None,
        help="npz file for the forecasts of all test windows",
    )
    parser.add_argument(
        "--upcycle",
        type=Path | None,
        help="with fit: start a network of mixtures from this checkpoint of the dense one",
    )
    parser.add_argument(
        "--calibrate",
        type=bool,
        default=True,
        help="with fit: keep what intervals need, the residuals of the validation windows, in "
        "the best checkpoint",
    )
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.set_defaults(
        {
            "early_stopping.monitor": MONITOR,
            "early_stopping.mode": "min",
            "early_stopping.patience": 100,
        }
    )
    for name in _OF_THE_DATA:
        parser.link_arguments(
            f"data.{name}", f"model.network.init_args.{name}", apply_on="instantiate"
        )


def as_recipe(given: Namespace, parser: ArgumentParser, recipes: Sequence[str]) -> str:
    """Return settings as a recipe that trains the same from anywhere: paths are absolute.

    Args:
        given: the settings; their paths are changed in place.
        parser: that read them.
        recipes: what they were made from, named in the first line.
    """
    if Path(given.data.dataset).is_file():
        given.data.dataset = str(Path(given.data.dataset).resolve())
    if given.upcycle:
        given.upcycle = given.upcycle.resolve()
    if given.data.root is not None:
        given.data.root = Path(given.data.root).expanduser().resolve()
    text = parser.dump(given, skip_unset=False)
    settings = {k: v for k, v in yaml.safe_load(text).items() if k not in _OF_ONE_CALL}
    # what is not used is left out, as in files from before
    data = settings["data"].items()
    settings["data"] = {k: v for k, v in data if v is not None or k not in _COLUMNS}
    network = settings["model"]["network"].get("init_args", {})
    for name, off in LATER_OPTIONS.items():
        if network.get(name, ...) == off:
            del network[name]
    return made_from(recipes) + yaml.safe_dump(settings, sort_keys=False)
