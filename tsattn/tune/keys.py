"""The names that a space may use, and the keys of a recipe that they stand for."""

import inspect
from difflib import get_close_matches

from tsattn.errors import ConfigError
from tsattn.models import NETWORKS
from tsattn.training.datamodule import ForecastData
from tsattn.training.parser import known_words
from tsattn.training.task import ForecastTask

ALIASES = {
    "activation": ("value_activation",),
    "width": ("d_model",),
    "heads": ("num_heads",),
    "depth": ("num_layers", "encoder_layers"),
    "patch": ("patch_length",),
}
"""Other names for a network's settings: the first that the network has is meant."""

NOT_COMPARABLE = (
    "data.borders",
    "data.dataset",
    "data.day_first",
    "data.decimal",
    "data.delimiter",
    "data.duplicates",
    "data.gaps",
    "data.horizon",
    "data.known_future",
    "data.layout",
    "data.past",
    "data.root",
    "data.static",
    "data.targets",
    "data.time_column",
    "data.time_zone",
    "model.loss",
    "model.network.quantiles",
    "model.quantile",
    "trainer.fast_dev_run",
    "trainer.limit_val_batches",
    "trainer.overfit_batches",
)
"""Settings that change what the validation loss measures: trials could not be compared."""

_LINKED = ("calendar_features", "channels", "context", "horizon", "season")
_LINKED += ("known_covariates", "past_covariates", "static_covariates")
"""What a network takes from the data."""

_NOT_TUNABLE = (
    "ckpt_path",
    "config",
    "estimate",
    "overwrite",
    "run_dir",
    "save_predictions",
    "upcycle",
)


def key_of(name: str, network: str) -> str:
    """Return the key of a recipe, as typed after ``--``, that a name in a space stands for.

    Args:
        name: an alias (``width``), a setting by its own name (``d_model``, ``learning_rate``), or a
            whole key (``model.network.d_model``, with or without ``init_args``).
        network: name of the network's class.

    Raises:
        ConfigError: there is no such setting, or it cannot be tuned; with the nearest right name.
    """
    name = name.replace(".init_args.", ".")
    short = _short_names(network)
    key = short.get(name, name)
    if key in NOT_COMPARABLE:
        raise ConfigError(
            f"{name!r} cannot be tuned: it changes what the validation loss measures, so that "
            "trials could not be compared; set it for the whole study with --" + key
        )
    if key == "seed_everything" or key in _NOT_TUNABLE:
        raise ConfigError(f"{name!r} is not a setting to tune; leave it out of the space")
    if key not in _keys(network):
        raise ConfigError(f"unknown setting {name!r}{_nearest(name, [*short, *_keys(network)])}")
    return key


def _short_names(network: str) -> dict[str, str]:
    """Return every setting that can be named without the part of the recipe it stands in."""
    names = {name: f"data.{name}" for name in _parameters(ForecastData)}
    names |= {name: f"model.{name}" for name in _parameters(ForecastTask)}
    mine = _of_the_network(network) if network in NETWORKS else []
    names |= {name: f"model.network.{name}" for name in mine}
    for alias, targets in ALIASES.items():
        found = [target for target in targets if target in mine]
        names |= {alias: f"model.network.{found[0]}"} if found else {}
    return names


def _keys(network: str) -> list[str]:
    """Return every whole key; those of other networks than this one are left out."""
    words = [word for word in known_words() if "." in word]
    if network not in NETWORKS:
        return words
    mine, prefix = _of_the_network(network), "model.network."
    return [
        key
        for key in words
        if not key.startswith(prefix) or key.removeprefix(prefix).partition(".")[0] in mine
    ]


def _of_the_network(network: str) -> list[str]:
    return [name for name in _parameters(NETWORKS[network]) if name not in _LINKED]


def _parameters(owner: type) -> list[str]:
    return [name for name in inspect.signature(owner.__init__).parameters if name != "self"]


def _nearest(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "; see tsattn fit --help for all settings"
