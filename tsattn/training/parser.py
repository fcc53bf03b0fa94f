"""The parser of recipes and options: short errors that name the nearest right key."""

import inspect
import re
import sys
from difflib import get_close_matches
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser

from tsattn.data.catalog import CATALOG
from tsattn.models import NETWORKS
from tsattn.nn import FeedForward
from tsattn.nn.moe import Experts, Gate, MoEFeedForward
from tsattn.nn.parts import PARTS
from tsattn.options import in_words
from tsattn.training.datamodule import ForecastData
from tsattn.training.schedules import EpochDecay, OneCycle
from tsattn.training.task import ForecastTask

SCHEDULES = (EpochDecay, OneCycle)
_PART = re.compile(
    r'Parser key "[\w.]*?(feedforward|gate|experts)":(?:(?!Parser key).)*import path string: (\w+)',
    re.S,
)
_KINDS = {"feedforward": (MoEFeedForward, FeedForward), "gate": Gate, "experts": Experts}
_CLASS = re.compile(
    r'Parser key "([\w.]+)":(?:(?!Parser key).)*Expected a dot import path string: (\S+)', re.S
)
_CLASSES = {"model.network": tuple(NETWORKS.values()), "model.schedule": SCHEDULES}
_UNKNOWN = (
    r"Option '([\w.]+)' is not accepted",
    r"does not accept option '([\w.]+)'",
    r"import path string: (\w+)",
)
_OPTION = re.compile(r"unrecognized arguments: --([\w.]+)")
_WORD = re.compile(r"unrecognized arguments: ([^\s-]\S*)")
_NO_SETTINGS = re.compile(r"Parser key \"data\":\s+Unable to load config '([^'\n]+)'")
_RECIPES = (".yaml", ".yml", ".json")
_TOP_KEYS = (
    *("seed_everything", "run_dir", "overwrite", "save_predictions", "ckpt_path", "config"),
    *("calibrate", "estimate", "upcycle"),
)
_USUAL_NAMES = {
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "lr": "model.learning_rate",
    "seed": "seed_everything",
    "out": "run_dir",
}
"""Options that other programs have, and what they are called here."""


class RecipeParser(LightningArgumentParser):
    """Takes no abbreviations, and prints one error with a suggestion, no screens of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, with the nearest key where one is unknown, and exit with 2."""
        text = str(message if message else ex)
        if "data.dataset" in text and "required" in text:
            text = f"no data: give --data.dataset a name ({', '.join(CATALOG)}) or a CSV file"
        elif misplaced := _misplaced(text):
            text = misplaced
        elif found := _PART.search(text):
            kind, given = found.groups()
            known = [name for name, part in PARTS.items() if issubclass(part, _KINDS[kind])]
            text = (
                f"unknown {kind} {given!r}; expected one of {', '.join(known)}, or an import path"
            )
            text += _nearest(given, known)
        elif found := _CLASS.search(text):
            text = _unknown_class(*found.groups())
        else:
            text = in_words(text) or text + suggestion(text)
        print(f"error: {text}", file=sys.stderr)
        print("all options: tsattn fit --help", file=sys.stderr)
        raise SystemExit(2)


def suggestion(message: str) -> str:
    """Return ``did you mean ...?`` for the unknown word that a message names, or nothing."""
    if option := _OPTION.search(message):
        return _nearest_key(option.group(1))
    for pattern in _UNKNOWN:
        found = re.search(pattern, message)
        if found:
            return _nearest(found.group(1), known_words())
    return ""


def _nearest(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1, cutoff=0.75)
    near = near or get_close_matches(given.rpartition(".")[2], known, n=1, cutoff=0.7)
    return f"\ndid you mean {near[0]!r}?" if near else ""


def _nearest_key(given: str) -> str:
    """Suggest whole keys alone: what is typed after ``--`` starts with the group."""
    keys = [word for word in known_words() if "." in word or word in _TOP_KEYS]
    last = given.rpartition(".")[2]
    same = [key for key in keys if key.rpartition(".")[2] == last]
    usual = _USUAL_NAMES.get(given)
    near = [usual] if usual else same or get_close_matches(given, keys, n=1, cutoff=0.75)
    if not near:
        ends = {key.rpartition(".")[2]: key for key in reversed(keys)}
        near = [ends[end] for end in get_close_matches(last, list(ends), n=1, cutoff=0.75)]
    return f"\ndid you mean {near[0]!r}?" if near else ""


def _misplaced(message: str) -> str:
    """Return where a file belongs that was given as ``--data`` or without an option, or nothing."""
    found = _NO_SETTINGS.search(message) or _WORD.search(message)
    if not found:
        return ""
    given = found.group(1)
    if given.endswith(_RECIPES):
        return "" if found.re is _NO_SETTINGS else f"give the recipe as --config {given}"
    is_data = re.search(r"\.[a-zA-Z]+$", given) or given.lower() in map(str.lower, CATALOG)
    if found.re is _WORD and not is_data:
        return ""
    return f"give the file as --data.dataset {given}"


def _unknown_class(key: str, given: str) -> str:
    known = [one.__name__ for one in _CLASSES.get(key, ())]
    near = _nearest(given, known or known_words())
    others = f"; expected one of {', '.join(known)}, or an import path" if known else ""
    return f"{key}: unknown class {given!r}{near or others}"


def known_words() -> list[str]:
    """Every key a recipe may hold and every class it may name."""
    keys = [*_TOP_KEYS]
    for prefix, owner in (
        ("trainer", Trainer),
        ("model", ForecastTask),
        ("data", ForecastData),
        ("early_stopping", EarlyStopping),
    ):
        keys += [f"{prefix}.{name}" for name in _parameters(owner)]
    feedforward = "model.network.feedforward"
    for prefix, owners in (
        ("model.network", NETWORKS.values()),
        ("model.schedule", SCHEDULES),
        (feedforward, (PARTS["MoE"], PARTS["CompeteSMoE"])),
        (f"{feedforward}.gate", PARTS.values()),
    ):
        for owner in owners:
            keys += [owner.__name__, *(f"{prefix}.{name}" for name in _parameters(owner))]
            keys += _parameters(owner)
    return list(dict.fromkeys(keys))


def _parameters(owner: type) -> list[str]:
    return [name for name in inspect.signature(owner.__init__).parameters if name != "self"]
