"""What makes a command go on with a study: the same space, the same recipe, the same data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from optuna import Study

from tsattn.data.panel import Panel
from tsattn.errors import ConfigError, DataError

_DATA = "data"
_DATASET = "data.dataset"
_OF_THE_MACHINE = (
    "data.root",
    "early_stopping.verbose",
    "trainer.accelerator",
    "trainer.default_root_dir",
    "trainer.devices",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.logger",
    "trainer.num_nodes",
)
"""Settings of the recipe that a study may go on without: they say where a trial runs."""


@dataclass(frozen=True)
class Identity:
    """What a study is begun with, and what may not change afterwards.

    Attributes:
        space: What the space describes.
        recipe: Text of the whole recipe that trials begin from.
        data: What `data_of` returns; None where the data was not read.
    """

    space: Mapping[str, Any]
    recipe: str
    data: str | None = None

    def require_same(self, begun: "Identity", name: str) -> None:
        """Refuse to go on with a study that was begun with something else.

        What only one side knows of the data is not compared; the dataset's name or path then is.

        Args:
            begun: what the study was begun with.
            name: of the study.

        Raises:
            ConfigError: the spaces, the data or the recipes differ.
        """
        now, then = json.loads(json.dumps(self.space)), begun.space
        _refuse(name, "with another space", "space", _differing(then, now))
        hashed = self.data is not None and begun.data is not None
        if hashed and self.data != begun.data:
            _refuse(name, "on other data", "data", [f"{self.data} instead of {begun.data}"])
        left_out = (*_OF_THE_MACHINE, _DATASET) if hashed else _OF_THE_MACHINE
        differing = _differing(_lasting(begun.recipe, left_out), _lasting(self.recipe, left_out))
        _refuse(name, "with another recipe", "recipe", differing)


def data_of(panel: Panel) -> str:
    """Return what identifies data, wherever its file lies.

    That is the hash of the file's bytes, and as what of the catalog they are read. Known byte
    variants of a catalog dataset differ in their line ends alone, and are the same.
    """
    hashed = f"sha256 {panel.sha256}"
    if panel.info is None:
        return hashed
    known = panel.info.variant_of(panel.sha256)
    return panel.info.name if known else f"{panel.info.name} with {hashed}"


def known_data(study: Study) -> str | None:
    """Return what `data_of` says of the data of a study, or None where nobody has said yet."""
    return study.user_attrs.get(_DATA)


def note_data(study: Study, data: str | None) -> None:
    """Note the data of a study for good; the first that is known counts.

    Args:
        study: the study.
        data: what `data_of` says; None where the data was not read.

    Raises:
        DataError: the study's trials are measured on other data.
    """
    known = known_data(study)
    if data is None or data == known:
        return
    if known is not None:
        raise DataError(
            f"it was measured on other data than the study {study.study_name!r}: {data} instead of "
            f"{known}"
        )
    study.set_user_attr(_DATA, data)


def _refuse(name: str, begun: str, kept: str, differing: list[str]) -> None:
    if differing:
        raise ConfigError(
            f"the study {name!r} was begun {begun}: {'; '.join(differing)}. Nothing was changed: "
            f"go on with the {kept} it was begun with, or choose another --study"
        )


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {_short(now.get(name))} instead of {_short(then.get(name))}"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    """Return a parameter or a setting in few words."""
    if value is None:
        return "absent"
    if not isinstance(value, Mapping) or "attributes" not in value:
        return repr(value)
    given = value["attributes"]
    if "choices" not in given:
        return f"{given['low']} to {given['high']}"
    labelled = any(len(bundle) > 1 for bundle in value["settings"].values())
    return str(value["settings"] if labelled else given["choices"])


def _lasting(recipe: str, left_out: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a recipe by whole key, some of them left out."""
    flat = _flat(yaml.safe_load(recipe))
    return {key: value for key, value in flat.items() if key not in left_out}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
