"""The parser of all commands but those that train: one short error, with the nearest right word."""

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from tsattn.errors import ConfigError, DataError

_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.+)\)")
_NO_CHOICE = re.compile(r'expected "subcommand" to be one of \{(.+)\}')
_REQUIRED = re.compile(r"the following arguments are required: (.+)")

_TYPED = re.compile(r'Parser key "([\w.]+)"( element \d+)?:\s+(.+)', re.S)
_UNQUOTED = re.compile(
    r"Subtypes: \[list\[str\],.*Expected a <class 'str'>\. Got value: (\S+)", re.S
)
_ONE_KIND = re.compile(r"Expected a ([^\n]+)\. Got value: ([^\n]*)")
_KINDS_OF_UNION = re.compile(
    r"Does not validate against any of the Union subtypes\n.*?Errors:\n"
    r"((?:\s+- Expected a [^\n]+\n)+)\s+Given value type: [^\n]+\n\s+Given value: ([^\n]*)",
    re.S,
)
_IN_WORDS = {
    "<class 'int'>": "an integer",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a text",
    "<class 'dict'>": "a mapping",
}


class CommandParser(ArgumentParser):
    """Takes no abbreviations, and prints one error with a suggestion, no screens of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """Return what was typed; a path may begin with ``~`` behind an equals sign too."""
        given = super().parse_args(*args, **kwargs)
        for name, value in list(given.items()):
            if isinstance(value, Path):
                given[name] = value.expanduser()
        return given

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, with the nearest word where one is unknown, and exit with 2."""
        text = str(message if message else ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        if found := _CHOICE.search(text):
            text = unknown_word(found.group(1), re.findall(r"[\w-]+", found.group(2)))
        elif found := _NO_CHOICE.search(text):
            text = f"expected one of {found.group(1).replace(',', ', ')}"
        elif found := _REQUIRED.search(text):
            names = [name.rpartition(".") for name in found.group(1).split(", ")]
            parser = self._of_subcommand(names[0][0]) or parser
            text = f"missing: {', '.join(_as_typed(parser, name) for _, _, name in names)}"
        elif found := _UNKNOWN.search(text):
            text += nearest(found.group(1), options_of(parser))
        else:
            text = in_words(text, "--") or text
        print(f"error: {text}", file=sys.stderr)
        print(f"all options: {parser.prog.replace(' [options]', '')} --help", file=sys.stderr)
        raise SystemExit(2)

    def _of_subcommand(self, name: str) -> ArgumentParser | None:
        for action in self._actions:
            if action.dest == "subcommand" and isinstance(action.choices, dict):
                return action.choices.get(name)
        return None


def options_of(parser: ArgumentParser) -> list[str]:
    """Return the options of a parser, as they are typed."""
    return [option for action in parser._actions for option in action.option_strings]


def _as_typed(parser: ArgumentParser, name: str) -> str:
    typed = {action.dest: action.option_strings for action in parser._actions}
    return (typed.get(name) or [name.upper()])[0]


def nearest(given: str, known: Collection[str]) -> str:
    """Return ``did you mean ...?`` on a line of its own, or nothing where no word is near."""
    near = get_close_matches(given, known, n=1)
    return f"\ndid you mean {near[0]!r}?" if near else ""


def unknown_word(given: str, known: Collection[str]) -> str:
    """Return the message about a word that is none of those expected."""
    return f"unknown word {given!r}; expected one of {', '.join(known)}{nearest(given, known)}"


def in_words(message: str, prefix: str = "") -> str:
    """Return in one line what a value should have been, or nothing where that is not the matter.

    Args:
        message: what jsonargparse says, with types of Python on up to seven lines.
        prefix: ``--`` where a key can only have been typed as an option.
    """
    typed = _TYPED.fullmatch(message.strip())
    if not typed:
        return ""
    key, element, about = typed.groups()
    if found := _UNQUOTED.search(about):
        return (
            f"{prefix}{key}: expected names, got {found.group(1)} among them; put names that are "
            f"numbers, or words like NO, in quotes: {prefix}{key} \"['2', 'NO']\""
        )
    if found := _ONE_KIND.fullmatch(about.strip()):
        kinds, given = [found.group(1)], found.group(2)
    elif found := _KINDS_OF_UNION.fullmatch(about.strip()):
        kinds, given = re.findall(r"- Expected a (.+)", found.group(1)), found.group(2)
    else:
        return ""
    expected = [_kind(one, given) for one in kinds if one != "<class 'NoneType'>"]
    if not all(expected):
        return ""
    choices = [choice for one in kinds for choice in _choices(one)]
    near = get_close_matches(given, choices, n=1)
    text = f"{prefix}{key}: expected {' or '.join(expected)}, got {given}"
    if prefix and element and "," in given:
        apart = " ".join(given.replace(",", " ").split())
        text += f"; put blanks between several, as {prefix}{key} {apart}"
    return text + (f"\ndid you mean {near[0]!r}?" if near else "")


def _kind(kind: str, given: str) -> str:
    """Return a type in words, or nothing where this module has none."""
    if choices := _choices(kind):
        return ("one of " if len(choices) > 1 else "") + ", ".join(map(repr, choices))
    if kind == "<class 'list'>" or kind.startswith("list["):
        return f"a list, for example '[{given}]'" if re.fullmatch(r"[\w.,-]+", given) else "a list"
    return _IN_WORDS.get(kind, "")


def _choices(kind: str) -> list[str]:
    return re.findall(r"'([^']*)'", kind) if kind.startswith("typing.Literal[") else []


def with_own_options(text: str, options: Collection[str]) -> str:
    """Name the options of the data as a command calls them; those of ``fit`` have a prefix.

    Args:
        text: a message of the reader of data.
        options: those that the command has, as ``--time_column``; others keep the name in ``fit``.
    """

    def own(found: re.Match[str]) -> str:
        option = f"--{found.group(1)}"
        return option if option in options else found.group()

    text = re.sub(r"--data\.(\w+)", own, text)
    if "--sort" in options and "sort the rows" in text:
        text += "; --sort does that"
    return text


@contextmanager
def naming_options(options: Collection[str]) -> Iterator[None]:
    """Raise errors about data and settings with the command's own options.

    Raises:
        DataError: what was raised within, in other words.
        ConfigError: likewise.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(with_own_options(str(error), options)) from error
