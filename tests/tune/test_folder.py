"""Whose a folder is: claimed by what succeeded, kept from others, and damaged."""

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
    with pytest.raises(ExistsError, match=r"belongs to the study mine in sqlite.*not to other in"):
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


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"study": "mine"}', "\udcff"])
def test_damaged_marker_says_what_to_write_into_it(tmp_path: Path, text: str) -> None:
    mine = folder(tmp_path)
    mine.path.mkdir()
    mine.marker.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ExistsError, match=r"study\.json is damaged: it holds.*choose another"):
        mine.require_free()
