"""What ``tsattn data`` prints, and the status it returns."""

from pathlib import Path

import pytest

from tsattn.cli.data import describe, fetch, list_datasets, verify
from tsattn.data.catalog import CATALOG
from tsattn.errors import DataError
from tsattn.resources import datasets_dir

Capture = pytest.CaptureFixture[str]


def test_list_names_every_dataset_and_what_to_run(capsys: Capture) -> None:
    assert list_datasets() == 0
    printed = capsys.readouterr().out
    for info in CATALOG.values():
        assert info.name in printed
        assert info.licence in printed
        assert info.source in printed
    assert str(datasets_dir() / "ETTh1.csv") in printed
    assert "not here, run `tsattn data fetch traffic`" in printed


def test_verify_of_everything_is_content_with_files_that_are_absent(capsys: Capture) -> None:
    assert verify() == 0
    printed = capsys.readouterr().out
    assert "ETTh1: right" in printed
    assert "traffic: not here" in printed


def test_verify_of_an_absent_file_fails_and_says_what_to_run(capsys: Capture) -> None:
    assert verify(["traffic"]) == 1
    assert "tsattn data fetch traffic" in capsys.readouterr().out


def test_verify_names_mismatches_and_fails(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n")
    assert verify(["illness", "etth1"], tmp_path) == 1
    printed = capsys.readouterr().out
    assert "illness: right" in printed
    assert f"ETTh1: differs {tmp_path / 'ETTh1.csv'}" in printed
    assert "1 rows where 17420 are expected" in printed


def test_fetch_of_a_shipped_file_says_where_it_is(capsys: Capture) -> None:
    assert fetch(["ETTh1", "illness"]) == 0
    assert f"ETTh1: already at {datasets_dir() / 'ETTh1.csv'}" in capsys.readouterr().out


def test_fetch_reports_every_failure_and_goes_on(tmp_path: Path, capsys: Capture) -> None:
    for name in ("ETTh1.csv", "ETTh2.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "national_illness.csv").write_bytes(
        (datasets_dir() / "national_illness.csv").read_bytes()
    )
    assert fetch(["ETTh1", "ETTh2", "illness"], tmp_path) == 1
    printed = capsys.readouterr().out
    assert printed.count("it is left as it is") == 2
    assert "illness: already at" in printed


@pytest.mark.parametrize("command", [fetch, verify])
def test_an_unknown_dataset_names_the_nearest(command) -> None:
    with pytest.raises(DataError, match=r"unknown dataset 'wether' \(nearest: weather"):
        command(["wether"])


def test_describe_prints_facts_and_statistics(capsys: Capture) -> None:
    assert describe("illness") == 0
    printed = capsys.readouterr().out
    for text in ("966", "7 d", "2002-01-01 00:00:00 to 2020-06-30", "ILITOTAL", "1.8513", "zeros"):
        assert text in printed


def test_describe_of_an_unusable_file_prints_why_and_fails(write_csv, capsys: Capture) -> None:
    path = write_csv("date,a\n03/04/2020,2\n04/04/2020,\n")
    assert describe(str(path)) == 1
    printed = capsys.readouterr().out
    assert "cannot be used:" in printed
    assert printed.count("can be read day first") == 1
    assert describe(str(path), day_first=True) == 1
    assert "line 3, column 'a' is empty" in capsys.readouterr().out


def test_describe_names_its_own_options(write_csv, capsys: Capture) -> None:
    path = write_csv("a,b\nx,1\ny,2\nz,3\n")
    assert describe(str(path)) == 1
    printed = capsys.readouterr().out
    assert "name it with --time_column" in printed
    assert "--data." not in printed
    with pytest.raises(DataError) as caught:
        describe("no/such.csv", Path("none"))
    assert "--data.root" not in str(caught.value)


def test_list_names_the_folder_given_by_its_option(tmp_path: Path, capsys: Capture) -> None:
    assert list_datasets(tmp_path) == 0
    assert f"{tmp_path} (--root)" in capsys.readouterr().out
