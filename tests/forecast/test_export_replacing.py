"""Exports replace exports, and nothing that is somebody's own."""

from pathlib import Path

import pytest

from tests.training.tiny import Finished, contents
from tsattn.errors import ExistsError
from tsattn.forecast import Forecaster
from tsattn.forecast.export import export


@pytest.mark.parametrize(
    "record", ["my own notes", '{"format": 1}', "[1]", '{"format": 1, "record": {}, "files": ['],
    ids=["text", "json", "list", "cut short"],
)  # fmt: skip
def test_folder_with_somebody_elses_record_is_not_replaced(
    illness: Finished, tmp_path: Path, record: str
) -> None:
    (tmp_path / "record.json").write_text(record, encoding="utf-8")
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(ExistsError, match="exists and is no export; choose another --out"):
        export(illness.folder.path, tmp_path, overwrite=True)
    assert contents(tmp_path) == before


def test_what_lies_beside_an_export_is_not_deleted_with_it(
    illness: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(illness.folder.path, out)
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    (out / ".git").mkdir()
    with pytest.raises(ExistsError, match=r"also holds \.git, thesis\.txt; move what is yours"):
        export(illness.folder.path, out, overwrite=True)
    assert (out / "thesis.txt").is_file()
    (out / "thesis.txt").unlink()
    (out / ".git").rmdir()
    (out / "model.safetensors").write_bytes(b"damaged")
    export(illness.folder.path, out, overwrite=True)
    Forecaster.load(out)
