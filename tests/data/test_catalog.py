import hashlib

import pytest

from tsattn.data.catalog import CATALOG, find, find_by_sha256, nearest, require
from tsattn.errors import DataError
from tsattn.resources import datasets_dir


def test_the_catalog_has_the_nine_datasets_and_eight_of_table_2() -> None:
    assert list(CATALOG) == [
        "ETTh1",
        "ETTh2",
        "ETTm1",
        "ETTm2",
        "weather",
        "traffic",
        "electricity",
        "illness",
        "exchange_rate",
    ]
    assert [name for name, info in CATALOG.items() if not info.in_table2] == ["exchange_rate"]


@pytest.mark.parametrize("info", CATALOG.values(), ids=lambda info: info.name)
def test_every_entry_is_complete(info) -> None:
    assert info.filename == f"{info.stem}.csv"
    assert info.sha256.keys() == info.size_bytes.keys() <= {"lf", "crlf"}
    assert all(len(digest) == 64 and int(digest, 16) for digest in info.sha256.values())
    assert info.urls
    assert all(url.startswith("https://") and url.endswith(info.filename) for url in info.urls)
    assert all("/main/" not in url and "/master/" not in url for url in info.urls), "not pinned"
    assert info.licence
    assert info.source
    if info.header is not None:
        assert len(info.header) == info.channels + 1
        assert (info.header[0], info.header[-1]) == (info.time_column, info.target)
    if info.borders is not None:
        assert sorted(info.borders) == list(info.borders)
        assert info.borders[-1] <= info.rows


def test_ett_has_two_addresses_and_explicit_borders() -> None:
    assert len(CATALOG["ETTm2"].urls) == 2
    assert CATALOG["ETTh1"].borders == (8640, 11520, 14400)
    assert CATALOG["ETTm1"].borders == (34560, 46080, 57600)
    assert CATALOG["weather"].borders is None


@pytest.mark.parametrize("name", ["ETTh1", "etth1", "ETTH1", " ETTh1 "])
def test_names_are_found_in_any_case(name: str) -> None:
    assert find(name) is CATALOG["ETTh1"]


def test_names_are_found_by_the_stem_of_the_file() -> None:
    assert find("national_illness") is CATALOG["illness"]
    assert find("Exchange-Rate") is CATALOG["exchange_rate"]
    assert find("nothing") is None


def test_an_unknown_name_raises_with_the_nearest_ones_and_the_list() -> None:
    assert nearest("wether")[0] == "weather"
    with pytest.raises(DataError, match=r"'elektricity' \(nearest: electricity.*exchange_rate"):
        require("elektricity")


@pytest.mark.parametrize("name", [name for name, info in CATALOG.items() if info.embedded])
def test_the_shipped_files_are_the_catalogs_byte_for_byte(name: str) -> None:
    info = CATALOG[name]
    data = (datasets_dir() / info.filename).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    variant = info.variant_of(digest)
    assert variant is not None
    assert len(data) == info.size_bytes[variant]
    assert find_by_sha256(digest) is info


def test_the_other_line_ends_of_illness_are_the_other_known_variant() -> None:
    info = CATALOG["illness"]
    data = (datasets_dir() / info.filename).read_bytes()
    unix = data.replace(b"\r\n", b"\n")
    assert info.variant_of(hashlib.sha256(data).hexdigest()) == "crlf"
    assert info.variant_of(hashlib.sha256(unix).hexdigest()) == "lf"
    assert len(unix) == info.size_bytes["lf"]
