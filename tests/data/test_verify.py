from pathlib import Path

import pytest

from tsattn.data.catalog import CATALOG
from tsattn.data.verify import verify_file
from tsattn.resources import datasets_dir

ETTH1 = (datasets_dir() / "ETTh1.csv").read_bytes()


def problems(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "ETTh1.csv"
    path.write_bytes(content)
    return "\n".join(verify_file(CATALOG["ETTh1"], path))


@pytest.mark.parametrize("name", [name for name, info in CATALOG.items() if info.embedded])
def test_shipped_files_are_right(name: str) -> None:
    info = CATALOG[name]
    assert verify_file(info, datasets_dir() / info.filename) == []


@pytest.mark.parametrize("name", ["ETTh2", "ETTm1", "ETTm2", "weather", "exchange_rate"])
def test_files_that_are_here_are_right(name: str, shared: Path) -> None:
    info = CATALOG[name]
    assert verify_file(info, shared / "datasets" / info.filename) == []


def test_the_other_variant_of_weather_is_right_too(shared: Path, tmp_path: Path) -> None:
    data = (shared / "datasets" / "weather.csv").read_bytes().replace(b"\r\n", b"\n")
    (tmp_path / "weather.csv").write_bytes(data)
    assert verify_file(CATALOG["weather"], tmp_path / "weather.csv") == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ETTH1[:1_000_000], ["1000000 bytes where 2589657 (lf) are expected", "rows where 17420"]),
        (
            ETTH1.replace(b"\n", b"\r\n"),
            ["bytes where 2589657", "header, columns and rows are right"],
        ),
        (ETTH1.replace(b"5.827", b"5.828", 1), ["sha256", "some values differ"]),
        (ETTH1.replace(b"HUFL", b"HULF", 1), ["'HULF' where 'HUFL' is expected"]),
        (ETTH1.replace(b",OT", b"", 1), ["channels where 7 are expected"]),
        (ETTH1.replace(b"2016-07-01", b"2017-07-01", 1), ["first timestamp '2017-07-01 00:00:00'"]),
        (b"", ["0 bytes", "not readable as CSV"]),
        (b"\x00\xff" * 100, ["200 bytes"]),
    ],
)
def test_every_mismatch_is_named(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    found = problems(tmp_path, content)
    assert "sha256" in found
    for text in expected:
        assert text in found
