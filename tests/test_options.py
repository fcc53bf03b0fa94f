"""What the parser of the commands says in the place of the parsers of libraries."""

from pathlib import Path

import pytest

from tsattn.options import CommandParser, in_words, with_own_options


def test_only_options_that_a_command_has_lose_their_prefix() -> None:
    text = "set --data.gaps regularise, or move --data.borders"
    assert with_own_options(text, ["--gaps"]) == "set --gaps regularise, or move --data.borders"
    assert with_own_options(text, []) == text


def test_home_is_found_behind_an_equals_sign_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    parser = CommandParser()
    parser.add_argument("--out", type=Path | None)
    parser.add_argument("--plot", type=Path | None)
    given = parser.parse_args(["--out=~/f.csv"])
    assert (given.out, given.plot) == (Path("/home/ann/f.csv"), None)


def test_sorting_is_offered_where_the_command_sorts() -> None:
    text = "a.csv: rows run backwards; sort the rows, oldest first"
    assert with_own_options(text, ["--sort"]) == f"{text}; --sort does that"
    assert with_own_options(text, ["--gaps"]) == text


def test_names_that_are_read_as_something_else_are_to_be_quoted() -> None:
    text = in_words(
        """Parser key "targets":
  Does not validate against any of the Union subtypes
  Subtypes: [list[str], <class 'NoneType'>]
  Errors:
    - Expected a <class 'str'>. Got value: 2
    - Expected a <class 'NoneType'>
  Given value type: <class 'list'>
  Given value: [2, 3]""",
        "--",
    )
    assert text.startswith("--targets: expected names, got 2 among them; put names that are")
    assert "\n" not in text


@pytest.mark.parametrize(
    "message",
    [
        "the following arguments are required: out",
        "Parser key \"x\":\n  Expected a <class 'Odd'>. Got value: 3",
        'Parser key "x":\n  Something that was never seen',
    ],
)
def test_message_of_an_unknown_form_is_left_to_the_caller(message: str) -> None:
    assert in_words(message) == ""
