"""From a grid file to cells: each is a recipe, overrides, and the key of its row."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tsattn.bench.rows import Key, Name
from tsattn.data import catalog
from tsattn.data.load import find_file
from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS
from tsattn.resources import configs_dir
from tsattn.training.recipes import with_recipes

_HASH_DIGITS = 12
_SELECTORS: Mapping[str, Callable[["Cell"], str]] = {
    "protocol": lambda cell: cell.key.protocol,
    "model": lambda cell: cell.key.model,
    "dataset": lambda cell: cell.key.dataset,
    "activation": lambda cell: cell.key.value_activation,
    "seed": lambda cell: str(cell.key.seed),
}


class ModelBlock(BaseModel):
    """One model of a grid.

    Attributes:
        recipe: its recipe, ``{dataset}`` standing for each dataset in turn.
        network: class that takes the place of the recipe's network; what it has no argument for is
            left out.
        overrides: settings that replace those of the recipe, by dotted name.
        activations: value activations; by default those of the grid, none: the model has no such.
        seeds: seeds; by default those of the grid.
        datasets: datasets; by default those of the grid.
        command: ``fit``, or ``test`` for a network without parameters.
        extra: name of the extra that installs what the model needs.
        module: what that extra must make importable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    network: str | None = None
    overrides: dict[str, Any] = {}
    activations: list[str] | None = None
    seeds: list[Annotated[int, Field(ge=0)]] | None = None
    datasets: list[Name] | None = None
    command: Literal["fit", "test"] = "fit"
    extra: str | None = None
    module: str | None = None


class GridFile(BaseModel):
    """A grid as it is written; see ``configs/bench/table2.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Name
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    datasets: Annotated[list[Name], Field(min_length=1)]
    activations: list[str] = []
    models: Annotated[dict[Name, ModelBlock], Field(min_length=1)]


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        key: of its row.
        words: what a person would type after ``tsattn``, the run folder left out.
        data: the dataset as the recipe names it.
        max_epochs: epochs that it may train.
        root: folder in which the recipe has the data looked for first.
        missing: what is not installed and how to install it; mostly empty.
    """

    key: Key
    words: tuple[str, ...]
    data: str
    max_epochs: int
    root: str | None = None
    missing: str = ""

    @property
    def name(self) -> str:
        """The cell as people read it: ``patchtst illness tanh 2021``."""
        parts = (self.key.model, self.key.dataset, self.key.value_activation, self.key.seed)
        return " ".join(str(part) for part in parts if part != "")

    def obstacle(self) -> str | None:
        """Why this cell cannot run here, and what to type; None where it can."""
        if self.missing:
            return self.missing
        info = catalog.find(self.data)
        if info is None:
            return None if Path(self.data).is_file() else f"there is no file {self.data}"
        if find_file(info, None if self.root is None else Path(self.root)) is None:
            return f"{info.filename} is not here: tsattn data fetch {info.name}"
        return None


def read_cells(grids: Sequence[str | Path]) -> list[Cell]:
    """Return the cells of grid files: seeds outermost, then datasets as listed, then models.

    Raises:
        ConfigError: no such file, or something in it that cannot be a grid; with the file.
    """
    placed: list[tuple[tuple[int, ...], Cell]] = []
    for number, name in enumerate(grids):
        path = _find(name)
        grid = _read(path)
        try:
            placed += [((*place, number), cell) for place, cell in _cells_of(grid)]
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    placed.sort(key=lambda one: one[0][:2])  # stable: within a dataset as written
    keys: set[Key] = set()
    for _, cell in placed:
        if cell.key in keys:
            raise ConfigError(f"{', '.join(map(str, grids))}: {cell.key.name} is there twice")
        keys.add(cell.key)
    return [cell for _, cell in placed]


def select(cells: Sequence[Cell], only: str | None, seeds: int | None) -> list[Cell]:
    """Return the cells that somebody asked for.

    Args:
        cells: all of them.
        only: for example ``dataset=illness,dataset=etth1,model=patchtst``: values of the same name
            are alternatives, different names must all agree; None: all.
        seeds: how many of the first seeds of each model; None: all.

    Raises:
        ConfigError: a name or value that no cell has.
    """
    wanted: dict[str, set[str]] = {}
    for word in (only or "").split(",") if only else ():
        name, joined, value = word.strip().partition("=")
        if not joined or name not in _SELECTORS:
            raise ConfigError(
                f"--only {word!r}: expected name=value with a name among {', '.join(_SELECTORS)}"
            )
        there = list(dict.fromkeys(map(_SELECTORS[name], cells)))
        if value not in there:
            raise ConfigError(
                f"--only: no {name} {value!r} in this grid; it has "
                f"{', '.join(filter(None, there))}{_hint(value, there)}"
            )
        wanted.setdefault(name, set()).add(value)
    known: dict[str, list[int]] = {}
    for cell in cells:
        of_model = known.setdefault(cell.key.model, [])
        if cell.key.seed not in of_model:
            of_model.append(cell.key.seed)
    most = max(map(len, known.values()))
    if seeds is not None and not 1 <= seeds <= most:
        raise ConfigError(f"--seeds {seeds}: the grid has {most} seeds; give 1 to that many")
    chosen = [
        cell
        for cell in cells
        if cell.key.seed in known[cell.key.model][:seeds]
        and all(_SELECTORS[name](cell) in values for name, values in wanted.items())
    ]
    if not chosen:
        raise ConfigError(f"--only {only}: no cell of the grid is all of this")
    return chosen


def _find(name: str | Path) -> Path:
    path, shipped = Path(name).expanduser(), configs_dir()
    for candidate in (path, shipped.parent / path, shipped / path, shipped / f"bench/{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = [file.relative_to(shipped.parent).as_posix() for file in shipped.glob("bench/*.yaml")]
    raise ConfigError(
        f"no grid {name}: there is no such file (shipped: {', '.join(sorted(known))})"
    )


def _read(path: Path) -> GridFile:
    try:
        return GridFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ConfigError(f"{path} is not a grid: {'; '.join(faults)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _cells_of(grid: GridFile) -> list[tuple[tuple[int, int], Cell]]:
    placed: list[tuple[tuple[int, int], Cell]] = []
    for model, block in grid.models.items():
        activations = grid.activations if block.activations is None else block.activations
        for activation in activations:
            if activation not in VALUE_ACTIVATIONS:
                raise ConfigError(
                    f"unknown value activation {activation!r} of {model}; expected one of "
                    f"{', '.join(VALUE_ACTIVATIONS)}{_hint(activation, VALUE_ACTIVATIONS)}"
                )
        for place, dataset in enumerate(block.datasets or grid.datasets):
            try:
                settings = _settings(_recipe(block, dataset))
            except ConfigError as error:
                raise ConfigError(f"dataset {dataset!r} of {model}: {error}") from error
            if dataset in grid.datasets:
                place = grid.datasets.index(dataset)
            for order, seed in enumerate(block.seeds or grid.seeds):
                for activation in activations or [""]:
                    key = (grid.protocol, model, dataset, activation, seed)
                    placed.append(((order, place), _cell(block, settings, key)))
    return placed


def _cell(
    block: ModelBlock, settings: Mapping[str, Any], key: tuple[str, str, str, str, int]
) -> Cell:
    _, _, dataset, activation, seed = key
    words = [block.command, "--config", _recipe(block, dataset)]
    if block.network:
        words += ["--model.network", block.network]
    for name, value in block.overrides.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    words += ["--seed_everything", str(seed)]
    if activation:
        words += ["--model.network.value_activation", activation]
    overridden = block.overrides.get("trainer.max_epochs")
    epochs = overridden or settings.get("trainer", {}).get("max_epochs") or 0
    if not isinstance(epochs, int):
        raise ConfigError(f"trainer.max_epochs of {key[1]} is {epochs!r}; expected a whole number")
    root = block.overrides.get("data.root") or settings["data"].get("root")
    return Cell(
        key=Key(*key, config_hash=_config_hash(block, settings, activation)),
        words=tuple(words),
        data=str(block.overrides.get("data.dataset") or settings["data"]["dataset"]),
        max_epochs=epochs if block.command == "fit" else 0,
        root=None if root is None else str(root),
        missing=_missing(block),
    )


def _recipe(block: ModelBlock, dataset: str) -> str:
    try:
        return block.recipe.format(dataset=dataset)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"recipe {block.recipe!r}: expected the name of one, with {{dataset}} in it where each "
            "dataset has its own"
        ) from error


def _missing(block: ModelBlock) -> str:
    if block.module is None or find_spec(block.module) is not None:
        return ""
    return f"{block.module} is not installed: pip install 'tsattn[{block.extra}]'"


def _settings(recipe: str) -> Mapping[str, Any]:
    words = with_recipes(["fit", "--config", recipe])
    text = Path(words[-1]).read_text(encoding="utf-8")
    try:
        settings = yaml.safe_load(text)
        _ = settings["data"]["dataset"], settings["model"]["network"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{words[-1]} is no recipe with data and a network: {error}") from error
    return settings


def _config_hash(block: ModelBlock, settings: Mapping[str, Any], activation: str) -> str:
    """Hash what is set, but for what has a column of its own and for where the data lie.

    That is the seed, and the value activation where the grid names one; where it names none it is
    the recipe's, unless another network stands in its place.
    """
    network = settings["model"]["network"]
    if isinstance(network, dict) and (activation or block.network):
        kept = {k: v for k, v in network.get("init_args", {}).items() if k != "value_activation"}
        network = network | {"init_args": kept}
    recipe = {name: part for name, part in settings.items() if name != "seed_everything"}
    recipe["model"] = recipe["model"] | {"network": network}
    recipe["data"] = {name: value for name, value in recipe["data"].items() if name != "root"}
    overrides = {name: value for name, value in block.overrides.items() if name != "data.root"}
    content = [block.command, recipe, block.network, overrides]
    canonical = json.dumps(content, sort_keys=True, default=str)
    return sha256(canonical.encode()).hexdigest()[:_HASH_DIGITS]


def _hint(given: str, known: Any) -> str:
    near = get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
