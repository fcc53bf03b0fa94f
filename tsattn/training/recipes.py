"""Which recipe files a command line names, and where they lie."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

import yaml

from tsattn.errors import ConfigError
from tsattn.resources import configs_dir

DEFAULT_RECIPE = Path("patchtst") / "default.yaml"
_FLAGS = ("--config", "-c")
_MADE_FROM = "# made from: "


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with every recipe as ``--config`` and the path of a file.

    A recipe that is not found from here is looked for among the shipped ones, as
    ``configs/patchtst/etth1.yaml``, ``patchtst/etth1.yaml`` or ``patchtst/etth1``. Where no recipe
    says which network to train, the generic one that sizes itself to any file comes first.

    Args:
        arguments: what a person types after ``tsattn``.

    Raises:
        ConfigError: there is no such recipe.
    """
    words: list[str] = []
    recipes: list[Path] = []
    for word in arguments:
        flag, joined, value = word.partition("=")
        if joined and flag in _FLAGS:
            words += ["--config", value]
        else:
            words.append("--config" if word == "-c" else word)
    for place, word in enumerate(words[:-1]):
        if word == "--config":
            recipes.append(_find(words[place + 1]))
            words[place + 1] = str(recipes[-1])
    if not any(_names_a_network(recipe) for recipe in recipes):
        words[1:1] = ["--config", str(configs_dir() / DEFAULT_RECIPE)]
    return words


def recipes_of(arguments: Sequence[str]) -> list[str]:
    """Return the recipes among arguments that `with_recipes` returned, the shipped ones by name.

    The ``config.yaml`` of a run stands for the recipes that it was made from.
    """
    files = [Path(b).resolve() for a, b in pairwise(arguments) if a == "--config"]
    return [recipe for file in files for recipe in _origins(file)]


def made_from(recipes: Sequence[str]) -> str:
    """Return the comment by which a run's ``config.yaml`` names its recipes."""
    return f"{_MADE_FROM}{', '.join(recipes)}\n"


def _origins(file: Path) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        first = lines.readline().strip()
    if first.startswith(_MADE_FROM):
        return first.removeprefix(_MADE_FROM).split(", ")
    root = configs_dir().parent
    return [file.relative_to(root).as_posix() if file.is_relative_to(configs_dir()) else file.name]


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_absolute() or path.is_file():
        return path
    shipped = configs_dir()
    for candidate in (shipped.parent / path, shipped / path, shipped / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = [file.relative_to(shipped).as_posix() for file in sorted(shipped.rglob("*.yaml"))]
    near = _near(path.with_suffix(".yaml").as_posix().removeprefix("configs/"), known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    folders = Counter(recipe.partition("/")[0] for recipe in known)
    listed = ", ".join(f"{folder}/ ({count})" for folder, count in folders.items())
    raise ConfigError(
        f"no recipe {name}: there is no such file here, and none of that name is shipped{hint} "
        f"(recipes are shipped in {listed} of {shipped})"
    )


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Return the nearest recipe, or up to three that are called so in any folder."""
    near = get_close_matches(name, known, n=1, cutoff=0.8)
    file = name.rpartition("/")[2]
    return near or [one for one in known if one.rpartition("/")[2] == file][:3]


def _names_a_network(recipe: Path) -> bool:
    try:
        settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        return settings["model"]["network"] is not None
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return False  # what is wrong with the file, the parser says
