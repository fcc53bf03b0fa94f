"""A recipe as the command reads it, before anything is built from it."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import yaml

from tsattn.errors import ConfigError
from tsattn.training.command import TrainingCLI
from tsattn.training.options import as_recipe
from tsattn.training.recipes import recipes_of, with_recipes


class ParsedRecipe:
    """What ``tsattn fit`` would train, as text and as settings.

    Args:
        arguments: recipes and overrides, as typed after ``tsattn fit``.

    Attributes:
        text: The whole recipe as YAML: the same run, wherever it is started from.

    Raises:
        ConfigError: there is no such recipe.
        SystemExit: an argument that does not parse; the message has been printed.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = _ParsingOnly(with_recipes(["fit", *arguments]))
        self.text: str = self._command.text

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting, nested as in the text."""
        return yaml.safe_load(self.text)

    @property
    def network(self) -> str:
        """Name of the network's class."""
        return str(self.settings["model"]["network"]["class_path"]).rpartition(".")[2]

    def require_parsable(self, words: Sequence[str]) -> None:
        """Refuse further overrides that the command would not take.

        Args:
            words: overrides, as typed after the recipe.

        Raises:
            ConfigError: with what the command says of them.
        """
        with refusals_of(" ".join(words)):
            self._command.parser.parse_args([*self._command.arguments, *words])


@contextmanager
def refusals_of(what: str) -> Iterator[None]:
    """Turn what a parser prints before it exits into an error.

    Args:
        what: is parsed; the message begins with it.

    Raises:
        ConfigError: the parser exited.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as error:
        reason = said.getvalue().removeprefix("error: ").partition("\nall options")[0]
        raise ConfigError(f"{what}: {reason.strip()}") from error


class _ParsingOnly(TrainingCLI):
    """Stops before anything is seeded, built or run."""

    def _set_seed(self) -> None:
        """Leave the generators alone."""

    def before_instantiate_classes(self) -> None:
        """Take the text, and nothing more."""
        parser, recipes = self._parser(self.subcommand), recipes_of(self.arguments)
        self.text = as_recipe(self._given.clone(), parser, recipes)

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""
