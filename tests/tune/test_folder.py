"""Whose a folder is: claimed by what succeeded, kept from others, and damaged."""

import json
from pathlib import Path

import pytest

from tsattn.errors import ExistsError
from tsattn.tune.folder import StudyFolder


def folder(tmp_path: Path, study: str = "mine", url: str | None = None) -> StudyFolder:
    return StudyFolder(tmp_path / "out", study, url or f"sqlite:///{tmp_path}/out/study.db")


def test_folder_belongs_to_nobody_until_the_storage_was_opened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unreachable"), folder(tmp_path, url="redis://x").claimed():
        raise OSError("unreachable")
    assert not (tmp_path / "out").exists()
    with folder(tmp_path).claimed():
        pass
    folder(tmp_path).require_free()
    with pytest.raises(
        ExistsError, match=r"belongs to the study mine in /.*study\.db, not to other in"
    ):
        folder(tmp_path, "other").require_free()


def test_command_killed_between_storage_and_claim_leaves_the_folder_free(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("study.db", "study.db-journal"):
        (tmp_path / "out" / name).touch()
    (tmp_path / "out" / ".study.json.ab12.unfinished").touch()
    folder(tmp_path).require_free()
    with pytest.raises(ExistsError, match="is no folder of a study"):
        folder(tmp_path, url="redis://x").require_free()
    (tmp_path / "out" / "theirs.txt").touch()
    with pytest.raises(ExistsError, match="is no folder of a study"):
        folder(tmp_path).require_free()


def test_storage_is_the_same_however_it_is_typed_and_wherever_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("sqlite", "journal"):
        with StudyFolder(Path(kind), "mine", f"{kind}:///{kind}/study.db").claimed():
            pass
        StudyFolder(tmp_path / kind, "mine", f"{kind}:///{tmp_path}/{kind}/study.db").require_free()
        Path(kind).rename(f"moved-{kind}")
        moved = Path(f"moved-{kind}").resolve()
        StudyFolder(moved, "mine", f"{kind}:///{moved}/study.db").require_free()
    StudyFolder(moved, "mine", f"journal:///{moved}/../{moved.name}/study.db").require_free()
    with StudyFolder(Path("out"), "mine", "sqlite:///study.db").claimed():
        pass
    StudyFolder(Path("out"), "mine", "sqlite:///study.db?timeout=60").require_free()


def test_same_words_typed_in_another_directory_are_another_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with folder(tmp_path, url="sqlite:///study.db").claimed():
        pass
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(ExistsError, match=r"in .*/study\.db, not to mine in .*/other/study\.db"):
        folder(tmp_path, url="sqlite:///study.db").require_free()


def test_marker_without_the_file_of_its_storage_is_read_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = folder(tmp_path, url="sqlite:///study.db")
    mine.path.mkdir()
    mine.marker.write_text(json.dumps({"study": "mine", "storage": "sqlite:///study.db"}))
    mine.require_free()
    folder(tmp_path, url=f"sqlite:///{tmp_path}/study.db").require_free()
    for url in ("sqlite:///another.db", "postgresql://host/base"):
        with pytest.raises(ExistsError, match="belongs to the study mine"):
            folder(tmp_path, url=url).require_free()
    mine.marker.write_text(json.dumps({"study": "mine", "storage": "no address"}))
    with pytest.raises(ExistsError, match="belongs to the study mine in no address"):
        mine.require_free()


def test_server_is_known_by_its_address(tmp_path: Path) -> None:
    with folder(tmp_path, url="postgresql://me:secret@host/base").claimed():
        pass
    folder(tmp_path, url="postgresql://me:changed@host/base").require_free()
    with pytest.raises(ExistsError, match="not to mine in postgresql://me@other/base"):
        folder(tmp_path, url="postgresql://me@other/base").require_free()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"study": "mine"}', '{"study": "mine", "storage": 5}', "\udcff"],
)
def test_damaged_marker_says_what_to_write_into_it(tmp_path: Path, text: str) -> None:
    mine = folder(tmp_path)
    mine.path.mkdir()
    mine.marker.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ExistsError, match=r"study\.json is damaged: it holds.*choose another"):
        mine.require_free()
