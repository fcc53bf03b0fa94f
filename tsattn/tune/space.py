"""The space of a study: which settings vary, and between which values.

A file of a space names each setting as in a recipe or shorter (`tsattn.tune.keys`), and says
what it may be:

    value_activation: {type: categorical, choices: [identity, tanh]}
    learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
    depth: {type: int, low: 1, high: 4}

Choices may also be named bundles of settings, which vary together:

    patches:
      type: categorical
      choices: {short: {patch_length: 12, stride: 6}, long: {patch_length: 24, stride: 12}}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS
from tsattn.resources import configs_dir
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.keys import key_of

Value = str | int | float | bool | None
_FIELDS = {
    "categorical": ("type", "choices"),
    "float": ("type", "low", "high", "log", "step"),
    "int": ("type", "low", "high", "log", "step"),
}
ACTIVATION = "model.network.value_activation"


@dataclass(frozen=True)
class Parameter:
    """One thing that varies.

    Attributes:
        name: As in the file of the space.
        distribution: What Optuna draws from.
        settings: For each choice of a categorical, the keys of the recipe that it sets; for a
            number the one key, without a value.
    """

    name: str
    distribution: BaseDistribution
    settings: Mapping[str, Mapping[str, Value]]

    @property
    def choices(self) -> tuple[Any, ...]:
        """The choices of a categorical; a number has none."""
        given = self.distribution
        return given.choices if isinstance(given, CategoricalDistribution) else ()

    @property
    def is_activation(self) -> bool:
        """Whether this is the value activation."""
        return bool(self.choices) and all(ACTIVATION in keys for keys in self.settings.values())

    def overrides(self, value: Any) -> dict[str, Value]:
        """Return what a value of this parameter sets in the recipe."""
        if self.choices:
            return dict(self.settings[str(value)])
        (key,) = self.settings[""]
        return {key: value}

    def suggest(self, trial: optuna.Trial) -> Any:
        """Draw a value."""
        given = self.distribution
        if isinstance(given, CategoricalDistribution):
            return trial.suggest_categorical(self.name, given.choices)
        if isinstance(given, IntDistribution):
            return trial.suggest_int(
                self.name, given.low, given.high, step=given.step, log=given.log
            )
        assert isinstance(given, FloatDistribution)
        return trial.suggest_float(self.name, given.low, given.high, step=given.step, log=given.log)

    def describe(self) -> dict[str, Any]:
        """Return the parameter in plain values."""
        given = json.loads(optuna.distributions.distribution_to_json(self.distribution))
        return {**given, "settings": {label: dict(keys) for label, keys in self.settings.items()}}


@dataclass(frozen=True)
class Space:
    """Everything that varies in a study, in the order of the file."""

    parameters: tuple[Parameter, ...]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw a value for every parameter."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return what values set in a recipe, as words of the command."""
        return [word for p in self.parameters for word in words_of(p.overrides(values[p.name]))]

    def describe(self) -> dict[str, Any]:
        """Return the space in plain values, by which another space is told from it."""
        return {parameter.name: parameter.describe() for parameter in self.parameters}

    def largest(self, key: str) -> float:
        """Return the largest number that a key of the recipe can get, 0 where it does not vary."""
        found: list[Any] = [0]
        for parameter in self.parameters:
            for settings in parameter.settings.values():
                if key in settings:
                    found.append(getattr(parameter.distribution, "high", settings[key]))
        return max(value for value in found if isinstance(value, int | float))

    @property
    def compared(self) -> Parameter | None:
        """The parameter whose choices are compared: the activation, else the first categorical."""
        found = [p for p in self.parameters if p.choices]
        return next((p for p in found if p.is_activation), found[0] if found else None)


def words_of(settings: Mapping[str, Value]) -> list[str]:
    """Return settings as words of the command."""
    return [
        word
        for key, value in settings.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]


def read_space(name: str, recipe: ParsedRecipe) -> Space:
    """Read a space and hold it against the recipe whose settings it varies.

    Args:
        name: a file here, or one of the shipped ones (``tune/activation``).
        recipe: what every trial begins from.

    Raises:
        ConfigError: no such file, or something in it that cannot work; with what would.
    """
    path = _find(name)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{path} names no setting; {_EXAMPLE}")
    try:
        space = Space(tuple(_parameter(str(key), is_, recipe) for key, is_ in given.items()))
        _refuse_twice(space)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return space


_EXAMPLE = "expected for example 'value_activation: {type: categorical, choices: [identity, tanh]}'"


def _parameter(name: str, given: Any, recipe: ParsedRecipe) -> Parameter:
    if not isinstance(given, dict) or given.get("type") not in list(_FIELDS):
        kind = given.get("type") if isinstance(given, dict) else given
        raise ConfigError(f"{name}: unknown type {kind!r} (categorical, float or int); {_EXAMPLE}")
    fields = _FIELDS[given["type"]]
    for field in given.keys() - set(fields):
        near = get_close_matches(str(field), fields, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name}: {given['type']} takes {', '.join(fields)}, not {field!r}{hint}")
    if given["type"] == "categorical":
        return _categorical(name, given.get("choices"), recipe)
    return _number(name, given, recipe)


def _categorical(name: str, choices: Any, recipe: ParsedRecipe) -> Parameter:
    if not isinstance(choices, list | dict) or not choices:
        raise ConfigError(
            f"{name}: choices must be a list of values or of bundles, got {choices!r}"
        )
    settings: dict[str, dict[str, Value]] = {}
    if isinstance(choices, dict):
        for label, bundle in choices.items():
            if not isinstance(bundle, dict):
                raise ConfigError(f"{name}: {label} must be a bundle of settings, got {bundle!r}")
            settings[str(label)] = {key_of(k, recipe.network): v for k, v in bundle.items()}
        choices = list(settings)
    else:
        key = key_of(name, recipe.network)
        for value in choices:
            if not isinstance(value, Value):
                raise ConfigError(f"{name}: a choice must be one value, got {value!r}")
            settings[str(value)] = {key: value}
    if len(settings) < len(choices):
        raise ConfigError(f"{name}: a choice is there twice: {', '.join(map(str, choices))}")
    for bundle in settings.values():
        _require_known_activation(bundle)
        recipe.require_parsable(words_of(bundle))
    return Parameter(name, CategoricalDistribution(choices), settings)


def _number(name: str, given: Mapping[str, Any], recipe: ParsedRecipe) -> Parameter:
    key, kind = key_of(name, recipe.network), given["type"]
    for field in ("low", "high"):
        value = given.get(field)
        hint = ""
        if isinstance(value, str) and "e" in value.lower():
            hint = " (YAML takes 1e-4 for a word: write 1.0e-4)"
        wanted = int if kind == "int" else int | float
        if not isinstance(value, wanted) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"{name}: {field} must be one {kind}, got {value!r}{hint}")
        recipe.require_parsable(words_of({key: value}))
    _require_step_and_log(name, given)
    low, high, log = given["low"], given["high"], given.get("log", False)
    try:
        if kind == "int":
            made = IntDistribution(low, high, log=log, step=given.get("step") or 1)
        else:
            made = FloatDistribution(float(low), float(high), log=log, step=given.get("step"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error
    return Parameter(name, made, {"": {key: None}})


def _require_step_and_log(name: str, given: Mapping[str, Any]) -> None:
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"{name}: log must be true or false, got {log!r}")
    wanted = int if given["type"] == "int" else int | float
    is_number = isinstance(step, wanted) and not isinstance(step, bool) and math.isfinite(step)
    if step is not None and not (is_number and step > 0):
        raise ConfigError(f"{name}: step must be one positive {given['type']}, got {step!r}")


def _require_known_activation(bundle: Mapping[str, Value]) -> None:
    if ACTIVATION not in bundle or bundle[ACTIVATION] in VALUE_ACTIVATIONS:
        return
    given = str(bundle[ACTIVATION])
    near = get_close_matches(given, VALUE_ACTIVATIONS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(VALUE_ACTIVATIONS)
    raise ConfigError(f"unknown value_activation {given!r}; expected one of {known}{hint}")


def _refuse_twice(space: Space) -> None:
    owners: dict[str, str] = {}
    for parameter in space.parameters:
        for key in {key for bundle in parameter.settings.values() for key in bundle}:
            if key in owners:
                raise ConfigError(f"{owners[key]} and {parameter.name} both set {key}")
            owners[key] = parameter.name


def _find(name: str) -> Path:
    path, shipped = Path(name).expanduser(), configs_dir()
    for file in (path, shipped.parent / path, shipped / path, shipped / f"{name}.yaml"):
        if file.is_file():
            return file
    known = [f"configs/tune/{file.name}" for file in sorted((shipped / "tune").glob("*.yaml"))]
    near = get_close_matches(path.as_posix(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no space {name}: no such file here or shipped{hint} ({', '.join(known)})")
