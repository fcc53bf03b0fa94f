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
from tsattn.training.datamodule import ForecastData
from tsattn.training.schedules import EpochDecay, OneCycle
from tsattn.training.task import ForecastTask

SCHEDULES = (EpochDecay, OneCycle)
_PART = re.compile(
    r'Parser key "[\w.]*?(feedforward|gate|experts)":(?:(?!Parser key).)*import path string: (\w+)',
    re.S,
)
_KINDS = {"feedforward": (MoEFeedForward, FeedForward), "gate": Gate, "experts": Experts}
_UNKNOWN = (
    r"Option '([\w.]+)' is not accepted",
    r"does not accept option '([\w.]+)'",
    r"unrecognized arguments: --([\w.]+)",
    r"import path string: (\w+)",
)


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
        if found := _PART.search(text):
            kind, given = found.groups()
            known = [name for name, part in PARTS.items() if issubclass(part, _KINDS[kind])]
            text = (
                f"unknown {kind} {given!r}; expected one of {', '.join(known)}, or an import path"
            )
            text += _nearest(given, known)
        else:
            text += suggestion(text)
        print(f"error: {text}", file=sys.stderr)
        print("all options: tsattn fit --help", file=sys.stderr)
        raise SystemExit(2)


def suggestion(message: str) -> str:
    """Return ``did you mean ...?`` for the unknown word that a message names, or nothing."""
    for pattern in _UNKNOWN:
        found = re.search(pattern, message)
        if found:
            return _nearest(found.group(1), known_words())
    return ""


def _nearest(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1, cutoff=0.75)
    near = near or get_close_matches(given.rpartition(".")[2], known, n=1, cutoff=0.7)
    return f"\ndid you mean {near[0]!r}?" if near else ""


def known_words() -> list[str]:
    """Every key a recipe may hold and every class it may name."""
    keys = ["seed_everything", "run_dir", "overwrite", "save_predictions", "ckpt_path", "config"]
    keys += ["calibrate", "estimate", "upcycle"]
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
