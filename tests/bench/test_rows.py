"""Rows of results: written whole, read back exactly, and never damaged by a second writer."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tsattn.bench import rows
from tsattn.bench.rows import COLUMNS, Row, append_row, read_rows, validate
from tsattn.errors import DataError, ExistsError

OK: dict[str, Any] = {
    "schema": 1, "protocol": "table2", "model": "patchtst", "dataset": "illness",
    "value_activation": "tanh", "seed": 2021, "status": "ok", "error": "",
    "config_hash": "0123456789ab", "recipe": "configs/patchtst/illness.yaml",
    "test_mse": 0.1 + 0.2, "test_mae": 0.5, "test_mse_as_published": 1e-300,
    "test_mae_as_published": 0.4, "test_windows": 158, "test_windows_dropped": 0,
    "windows_as_published": 144, "val_mse": 1 / 3, "best_epoch": 7, "epochs": 100,
    "max_epochs": 100, "checkpoint_rule": "lowest validation loss", "data_sha256": "a" * 64,
    "train_rows": "0:676", "val_rows": "572:773", "test_rows": "669:966",
    "scaler": "mean, deviation", "context": 104, "horizon": 36, "parameters": 41476,
    "wall_seconds": 98.5, "peak_mib": None, "device": "cpu", "devices": 1, "threads": 1,
    "precision": "32-true", "attention": "cpu", "tsattn": "0.1.0", "torch": "2.13.0",
    "lightning": "2.6.6", "python": "3.11.7", "commit": "", "checkpoint": "",
    "checkpoint_sha256": "b" * 64, "finished": "2026-01-02T03:04:05Z",
}  # fmt: skip
NO_SCORES = dict.fromkeys(name for name in OK if name.startswith(("test_m", "test_w", "val_mse")))


def row(**changes: Any) -> Row:
    return Row(**(OK | changes))


def failed(**changes: Any) -> Row:
    return row(status="failed", error="the loss became NaN", **NO_SCORES, **changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "patchtst.csv"
    append_row(path, row())
    append_row(path, row(seed=2022))
    return path


def test_row_comes_back_as_it_was_written(file: Path) -> None:
    assert read_rows(file) == [row(), row(seed=2022)]
    header = file.read_text(encoding="utf-8").splitlines()[0]
    assert header == ",".join(COLUMNS)
    assert asdict(row()) == OK  # pyright: ignore[reportArgumentType]
    validate(file)


def test_rows_written_again_are_the_same_bytes(file: Path, tmp_path: Path) -> None:
    for one in read_rows(file):
        append_row(tmp_path / "again.csv", one)
    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()


def test_finished_key_is_refused_and_the_file_stays(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ExistsError, match="table2-patchtst-illness-tanh-2021-0123456789ab already"):
        append_row(file, row(test_mse=0.0))
    assert file.read_bytes() == before


def test_failed_row_is_superseded_by_the_next_of_its_key(tmp_path: Path) -> None:
    file = tmp_path / "patchtst.csv"
    for one in (failed(), row(seed=5), failed(finished="2027-01-02T03:04:05Z"), row()):
        append_row(file, one)
    assert read_rows(file) == [row(seed=5), row()]
    assert len(file.read_text().splitlines()) == 5


def test_file_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.csv") == []
    with pytest.raises(DataError, match="no results at"):
        validate(tmp_path / "none.csv")


DAMAGE = [
    ("0.30000000000000004", "abc", r"line 2: test_mse 'abc': .*number"),
    ("0.30000000000000004", "nan", r"line 2: test_mse 'nan': .*finite"),
    ("0.30000000000000004", "-1", r"line 2: test_mse '-1': .*greater"),
    ("0.30000000000000004", "", r"line 2: .*needs test_mse"),
    (",tanh,", ",tanh,,", r"line 2: 46 cells, expected 45"),
    (",ok,", ",fine,", r"line 2: status 'fine'"),
    (",ok,,", ",ok,oh,", r"line 2: .*has no error"),
    ("158,0,144", "158,14,144", r"line 2: test_windows_dropped '14'"),
    ("1,table2", "one,table2", r"line 2: schema 'one'"),
    ("1,table2", "2,table2", r"line 2: written by a newer tsattn \(schema 2, this one knows 1\)"),
    ("schema,protocol", "schema,protokoll", r"line 1: expected the header"),
    (",2022,", ",2021,", r"line 3: table2-.* has its scores in line 2 already"),
    ("\n1,table2", '\n1,"table2', r"line \d: "),
]


@pytest.mark.parametrize(("old", "new", "message"), DAMAGE)
def test_damaged_row_is_named_with_file_and_line_and_nothing_is_changed(
    file: Path, old: str, new: str, message: str
) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    before = file.read_bytes()
    for act in (read_rows, validate, lambda path: append_row(path, row(seed=9))):
        with pytest.raises(DataError, match=r"patchtst\.csv, " + message):
            act(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,table2,pat", r"line 4: the line is cut short"),
        (b"\xff\n", "line 4: bytes that are not"),
    ],
)
def test_line_of_other_bytes_is_named(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(file.read_bytes() + data)
    with pytest.raises(DataError, match=message):
        read_rows(file)


def test_newer_schema_with_other_columns_is_called_newer(tmp_path: Path) -> None:
    file = tmp_path / "patchtst.csv"
    file.write_text("schema,protocol,colour\n7,table3,red\n")
    with pytest.raises(DataError, match=r"line 2: written by a newer tsattn .*upgrade tsattn"):
        append_row(file, row())
    assert file.read_text() == "schema,protocol,colour\n7,table3,red\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "failed"}, "a failed row needs its error"),
        ({"status": "failed", "error": "no memory"}, "has no scores"),
        ({"error": "two\nlines"}, "error"),
        ({"config_hash": "short"}, "config_hash"),
        ({"seed": -1}, "seed"),
        ({"finished": "yesterday"}, "finished"),
    ],
)
@pytest.mark.unchecked
def test_row_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row(**changes)


WRITER = """
import sys
from dataclasses import replace
from tsattn.bench.rows import append_row, read_rows

(template,) = read_rows(sys.argv[1])
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    append_row(sys.argv[2], replace(template, seed=seed))
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    append_row(tmp_path / "template.csv", row())
    file = tmp_path / "patchtst.csv"
    words = [sys.executable, "-c", WRITER, str(tmp_path / "template.csv"), str(file)]
    writers = [subprocess.Popen([*words, str(first), str(first + 40)]) for first in (0, 1000, 2000)]
    assert [writer.wait(timeout=200) for writer in writers] == [0, 0, 0]
    found = [one.seed for one in read_rows(file)]
    assert sorted(found) == [*range(40), *range(1000, 1040), *range(2000, 2040)]
    assert {replace(one, seed=0) for one in read_rows(file)} == {row(seed=0)}  # pyright: ignore
    assert not list(tmp_path.glob("*unfinished*"))


def test_file_that_stays_locked_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LOCK_SECONDS", 0.1)
    before = file.read_bytes()
    with (
        rows.FileLock(file.with_name(f".{file.name}.lock")),
        pytest.raises(DataError, match="has been locked by another process"),
    ):
        append_row(file, row(seed=9))
    assert file.read_bytes() == before
