from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsattn.data import CATALOG, load_panel
from tsattn.data.load import cache_dir, search_folders
from tsattn.errors import DataError
from tsattn.resources import configs_dir, datasets_dir

PRESENT = [name for name in CATALOG if name not in ("traffic", "electricity")]


@pytest.fixture
def weather(shared: Path, tmp_path: Path) -> bytes:
    return (shared / "datasets" / "weather.csv").read_bytes()


def test_the_shipped_etth1_loads_without_any_setting() -> None:
    panel = load_panel("etth1")
    assert (panel.name, panel.num_rows, panel.num_channels) == ("ETTh1", 17420, 7)
    assert panel.channels == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert panel.step == pd.Timedelta(hours=1)
    assert (panel.step_seconds, panel.layout, panel.time_column) == (3600.0, "wide", "date")
    assert str(panel.start) == "2016-07-01 00:00:00"
    assert str(panel.end) == "2018-06-26 19:00:00"
    assert panel.series[0].values_RC[0, -1] == 30.5310001373291
    assert panel.sha256 == CATALOG["ETTh1"].sha256["lf"]
    assert panel.notes == ()


@pytest.mark.parametrize("name", PRESENT)
def test_every_dataset_that_is_here_loads_with_its_shape(name: str, shared: Path) -> None:
    info = CATALOG[name]
    panel = load_panel(name, root=shared / "datasets")
    assert (panel.num_rows, panel.num_channels) == (info.rows, info.channels)
    assert panel.path.parent == shared / "datasets"
    assert panel.start == pd.Timestamp(str(info.start))
    assert panel.end == pd.Timestamp(str(info.end))
    assert panel.channels[-1] == info.target
    assert panel.info is info
    assert np.isfinite(panel.series[0].values_RC).all()


def test_weather_keeps_its_oddities_and_reports_them(shared: Path) -> None:
    panel = load_panel("weather", root=shared / "datasets")
    notes = "\n".join(panel.notes)
    assert "1 duplicate timestamp, kept: 2020-05-12 06:00:00" in notes
    assert "2020-05-29 09:30:00 to 2020-05-29 11:10:00 (1 h 40 min)" in notes
    assert "sentinel -9999 kept in 'wv (m/s)' 1," in notes
    assert "'OT' 50" in notes
    assert (panel.series[0].values_RC == -9999).sum() == 81


def test_a_weather_file_in_windows_1252_is_read_by_position(weather: bytes, tmp_path: Path) -> None:
    recoded = weather.replace("�".encode(), b"\xb5")
    (tmp_path / "weather.csv").write_bytes(recoded)
    panel = load_panel("weather", root=tmp_path)
    assert panel.num_channels == 21
    assert any("is not a known one of weather" in note for note in panel.notes)


def test_a_users_own_file_with_these_oddities_is_refused_with_lines(
    weather: bytes, tmp_path: Path
) -> None:
    text = weather.decode().replace("�", "u").replace("1008.89", "1008.88", 1)
    own = tmp_path / "own_weather.csv"
    own.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"duplicate timestamps at line 19046 \(2020-05-12 06:00"):
        load_panel(own)


def test_a_missing_catalog_file_says_where_it_was_looked_for_and_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSATTN_DATA", str(tmp_path / "variable"))
    with pytest.raises(DataError) as caught:
        load_panel("traffic", root=tmp_path / "root")
    message = str(caught.value)
    for place in (tmp_path / "root", tmp_path / "variable", datasets_dir(), cache_dir()):
        assert str(place) in message
    assert "tsattn data fetch traffic" in message
    assert "traffic.csv" in message


def test_folders_are_searched_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSATTN_DATA", str(tmp_path / "variable"))
    folders = [folder for _, folder in search_folders(tmp_path / "root")]
    assert folders == [tmp_path / "root", tmp_path / "variable", datasets_dir(), cache_dir()]
    for folder in (tmp_path / "variable", tmp_path / "root"):
        folder.mkdir()
        (folder / "ETTh1.csv").write_bytes((datasets_dir() / "ETTh1.csv").read_bytes())
    assert load_panel("ETTh1").path.parent == tmp_path / "variable"
    assert load_panel("ETTh1", root=tmp_path / "root").path.parent == tmp_path / "root"


def test_the_cache_is_the_users_unless_the_variable_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSATTN_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("TSATTN_CACHE")
    assert "tsattn" in str(cache_dir())


def test_resources_are_those_of_the_checkout(root: Path) -> None:
    assert datasets_dir() == root / "datasets"
    assert configs_dir() == root / "configs"


def test_a_catalog_file_with_other_values_loads_and_says_so(tmp_path: Path) -> None:
    text = (datasets_dir() / "ETTh1.csv").read_text().replace("5.827000141143799", "5.5", 1)
    (tmp_path / "ETTh1.csv").write_text(text)
    panel = load_panel("ETTh1", root=tmp_path)
    assert panel.series[0].values_RC[0, 0] == 5.5
    assert any(note.startswith("WARNING: sha256") for note in panel.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HUFL,HULL", "HULL,HUFL", "'HULL' where 'HUFL' is expected"),
        ("date,", "time,", "from 'time' to 'OT'"),
        ("5.827000141143799", "abc", "column 'HUFL' has text in line 2: 'abc'"),
        ("5.827000141143799", "inf", "column 'HUFL' has no finite number in line 2"),
        ("2016-07-01 00:00:00,", "yesterday,", "line 2 has no timestamp"),
    ],
)
def test_a_damaged_catalog_file_is_refused_with_the_difference(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (datasets_dir() / "ETTh1.csv").read_text().replace(old, new, 1)
    (tmp_path / "ETTh1.csv").write_text(text)
    with pytest.raises(DataError, match="is not the ETTh1 of the catalog") as caught:
        load_panel("ETTh1", root=tmp_path)
    assert message in str(caught.value)
    assert "tsattn data fetch ETTh1" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"date,HUFL\n2016-07-01,1\n"])
def test_a_truncated_or_binary_catalog_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ETTh1.csv").write_bytes(content)
    with pytest.raises(DataError, match="is not the ETTh1 of the catalog"):
        load_panel("ETTh1", root=tmp_path)


def test_a_copy_of_a_benchmark_file_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "mine.csv"
    copy.write_bytes((datasets_dir() / "national_illness.csv").read_bytes())
    panel = load_panel(copy)
    assert panel.name == "illness"
    assert "its borders apply" in panel.notes[0]


def test_an_unknown_dataset_names_the_nearest_ones() -> None:
    with pytest.raises(DataError, match=r"unknown dataset 'ETTh3'.*nearest: ETTh") as caught:
        load_panel("ETTh3")
    assert "expected a path to a CSV file or one of ETTh1, ETTh2" in str(caught.value)


def test_a_missing_file_is_named_in_full(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere\.csv") as caught:
        load_panel(tmp_path / "nowhere.csv")
    assert str(tmp_path / "nowhere.csv") in str(caught.value)


def test_a_folder_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        load_panel(tmp_path)
