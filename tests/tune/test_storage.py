"""Where studies are kept: locked, unreachable, changed, and somebody else's."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tests.tune.fake import write_space
from tsattn.errors import ConfigError, StorageError
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.identity import Identity
from tsattn.tune.sampling import make_pruner
from tsattn.tune.space import read_space
from tsattn.tune.storage import has_trials, open_study, quiet, shown


@pytest.fixture
def space(tmp_path: Path, recipe: ParsedRecipe) -> dict[str, Any]:
    return read_space(write_space(tmp_path), recipe).describe()


def begin(
    url: str, space: dict[str, Any], recipe: str, name: str = "mine", data: str | None = None
) -> optuna.Study:
    return open_study(url, name, Identity(space, recipe, data), pruner=make_pruner("none", 1))


@pytest.fixture(params=["sqlite:///{}/study.db", "journal:///{}/study.log"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param.format(tmp_path)


def test_study_is_found_again_by_its_name(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    study = begin(url, space, recipe.text)
    study.ask()
    assert len(begin(url, space, recipe.text).trials) == 1
    assert begin(url, space, recipe.text, name="other").trials == []


def test_changed_space_is_refused_and_nothing_is_lost(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    study = begin(url, space, recipe.text)
    study.tell(study.ask(), 1.0)
    narrower = json.loads(json.dumps(space))
    narrower["learning_rate"]["attributes"]["high"] = 0.05
    narrower["value_activation"]["attributes"]["choices"] = ["identity"]
    narrower["d_ff"] = narrower.pop("learning_rate")
    with pytest.raises(ConfigError) as caught:
        begin(url, narrower, recipe.text)
    for part in (
        "another space", "learning_rate absent instead of 0.0001 to 0.1", "d_ff 0.0001 to 0.05",
        "value_activation ['identity'] instead of ['identity', 'tanh', 'relu']", "--study",
    ):  # fmt: skip
        assert part in str(caught.value)
    assert [trial.value for trial in begin(url, space, recipe.text).trials] == [1.0]


def test_order_of_the_space_does_not_matter(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    begin(url, space, recipe.text)
    begin(url, dict(reversed(space.items())), recipe.text)


def test_changed_recipe_is_refused_but_not_another_machine(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    begin(url, space, recipe.text)
    settings = recipe.settings
    settings["trainer"]["accelerator"] = "cpu"
    settings["data"]["root"] = "/elsewhere"
    begin(url, space, yaml.safe_dump(settings))
    settings["trainer"]["max_epochs"] = 5
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs 5 instead of 4"):
        begin(url, space, yaml.safe_dump(settings))


def test_other_data_are_refused_and_the_same_data_at_another_path_are_not(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    begin(url, space, recipe.text, data="sha256 aa")
    settings = recipe.settings
    settings["data"]["dataset"] = "/elsewhere/own.csv"
    elsewhere = yaml.safe_dump(settings)
    begin(url, space, elsewhere, data="sha256 aa")
    said = r"on other data: sha256 bb instead of sha256 aa\. Nothing was changed.*another --study"
    with pytest.raises(ConfigError, match=said):
        begin(url, space, recipe.text, data="sha256 bb")
    begin(url, space, recipe.text)  # what is not known is not compared
    with pytest.raises(ConfigError, match=r"another recipe: data\.dataset '/elsewhere/own.csv'"):
        begin(url, space, elsewhere)


def test_study_begun_without_its_data_takes_those_of_who_knows_them(
    url: str, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    begin(url, space, recipe.text)
    begin(url, space, recipe.text, data="sha256 aa")
    with pytest.raises(ConfigError, match="on other data"):
        begin(url, space, recipe.text, data="sha256 bb")


def test_study_of_another_program_is_left_alone(
    url: str, tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    begin(url, space, recipe.text, name="first")
    from tsattn.tune.storage import open_storage

    with quiet():
        theirs = optuna.create_study(storage=open_storage(url), study_name="mine")
    theirs.tell(theirs.ask(), 1.0)
    with pytest.raises(ConfigError, match="was not begun by tsattn tune"):
        begin(url, space, recipe.text)
    assert theirs.user_attrs == {}


def test_locked_storage_says_so_and_keeps_what_is_in_it(
    tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    url = f"sqlite:///{tmp_path}/study.db?timeout=0.1"
    begin(url, space, recipe.text).ask()
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match=r"is locked by another process.*goes on with it"):
        begin(url, space, recipe.text)
    holder.execute("ROLLBACK")
    holder.close()
    assert len(begin(url, space, recipe.text).trials) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{}/no/such/folder/study.db", "unable to open database file"),
        ("journal:///{}/no/such/folder/study.log", "No such file"),
        ("sqlite:///{}/text.db", "not a database"),
        ("journal:///{}/text.db", "no journal begins with 'no study"),
        ("firebird://user:secret@host/base", "unknown kind of storage 'firebird'"),
        ("redis://user:secret@host", "expected sqlite:///, journal:///"),
    ],
)
def test_storage_that_cannot_be_used_is_an_error_in_words(
    url: str, said: str, tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    (tmp_path / "text.db").write_text("no study\n" * 200)
    with pytest.raises(StorageError) as caught:
        begin(url.format(tmp_path), space, recipe.text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.parametrize("content", [b"no study", b"no study\n" * 200, b"\xff\xfe\x00\n", b"[]\n"])
def test_file_of_something_else_is_left_as_it_is(
    kind: str, content: bytes, tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    file = tmp_path / "theirs"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=r"was reached, but holds no studies.*--storage"):
        begin(f"{kind}:///{file}", space, recipe.text)
    assert file.read_bytes() == content


@pytest.mark.parametrize("line", ["no study\n", "{}\n", "5\n"])
def test_damaged_journal_is_an_error_in_words(
    line: str, tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    url = f"journal:///{tmp_path}/study.log"
    begin(url, space, recipe.text)
    lines = (tmp_path / "study.log").read_text().splitlines(keepends=True)
    (tmp_path / "study.log").write_text("".join([*lines[:1], line, *lines[1:]]))
    with pytest.raises(StorageError, match=r"is damaged: .*put back a copy"):
        begin(url, space, recipe.text)


def test_storage_that_is_no_address_is_refused(space: dict[str, Any], recipe: ParsedRecipe) -> None:
    with pytest.raises(ConfigError, match=r"is no address; expected for example sqlite:///"):
        begin("study.db", space, recipe.text)


def test_looking_for_trials_begins_nothing(
    url: str, tmp_path: Path, space: dict[str, Any], recipe: ParsedRecipe
) -> None:
    assert not has_trials(url, "mine")
    assert list(tmp_path.glob("study.*")) == []
    study = begin(url, space, recipe.text)
    assert not has_trials(url, "mine")
    study.ask()
    assert has_trials(url, "mine")
    assert not has_trials(url, "other")


def test_password_is_not_shown() -> None:
    assert "secret" not in shown("postgresql://user:secret@host/base")
