from pathlib import Path

import numpy as np
import pytest

from tsattn.data.describe import describe_dataset
from tsattn.data.reading import Reading
from tsattn.errors import DataError


def facts_of(description) -> dict[str, str]:
    return dict(description.facts)


def test_a_catalog_dataset_is_described() -> None:
    description = describe_dataset("illness")
    facts = facts_of(description)
    assert facts["rows"] == "966"
    assert facts["step"] == "7 d"
    assert facts["span"] == "2002-01-01 00:00:00 to 2020-06-30 00:00:00"
    assert (facts["duplicates"], facts["gaps"]) == ("0", "0")
    assert description.problem is None
    first = description.channels[0]
    assert (first.name, first.count, first.missing) == ("% WEIGHTED ILI", 966, 0)
    assert first.minimum <= first.mean <= first.maximum
    assert not first.is_constant


def test_weather_is_described_with_gap_duplicate_and_sentinels(shared: Path) -> None:
    description = describe_dataset("weather", root=shared / "datasets")
    facts = facts_of(description)
    assert facts["duplicates"] == "1: 2020-05-12 06:00:00"
    assert facts["gaps"].startswith("1: 2020-05-29 09:30:00 to 2020-05-29 11:10:00")
    sentinels = {one.name: one.sentinels for one in description.channels if one.sentinels}
    assert sentinels["OT"] == ((-9999.0, 50),)
    assert len(sentinels) == 3


def test_statistics_are_those_of_the_values(write_csv) -> None:
    values = [0.0, 2.5, -1.0, 0.0, 9999.0]
    rows = [f"2020-01-0{i},{value},7" for i, value in enumerate(values, 1)]
    description = describe_dataset(write_csv("\n".join(["date,a,flat", *rows])))
    a, flat = description.channels
    assert (a.count, a.missing, a.zeros, a.minimum, a.maximum) == (5, 0, 2, -1.0, 9999.0)
    assert a.mean == pytest.approx(np.mean(values))
    assert a.sd == pytest.approx(np.std(values))
    assert a.sentinels == ((9999.0, 1),)
    assert (flat.is_constant, a.is_constant) == (True, False)


def test_a_long_file_is_described_with_its_lengths(write_csv) -> None:
    rows = [f"{name},2020-01-0{i},{i}" for name, n in (("a", 9), ("b", 4)) for i in range(1, n + 1)]
    description = describe_dataset(write_csv("\n".join(["unique_id,ds,y", *rows])))
    assert facts_of(description)["series"] == "2, of 4 to 9 rows, median 6.5"
    assert description.channels[0].count == 13


def test_a_file_that_cannot_be_used_is_still_described(write_csv) -> None:
    path = write_csv(
        "date,a,b\n2020-01-01,1,x\n2020-01-02,2,\n2020-01-02,-9999,3\n2020-01-06,4,5\nsoon,5,6\n"
    )
    description = describe_dataset(path)
    facts = facts_of(description)
    assert description.problem is not None
    assert "no timestamp in line 6" in description.problem
    assert facts["unreadable timestamps"] == "1"
    assert facts["duplicates"] == "1: 2020-01-02 00:00:00"
    assert "2020-01-02 00:00:00 to 2020-01-06 00:00:00 (4 d)" in facts["gaps"]
    a, b = description.channels
    assert (a.count, a.sentinels) == (5, ((-9999.0, 1),))
    assert (b.count, b.missing, b.text) == (3, 1, 1)
    assert facts["cells of text"] == "1 in 'b'"


@pytest.mark.parametrize(
    ("text", "problem", "fact"),
    [
        ("x,a\n1,2\n2,3\n", "no time column", ("time", "see below")),
        ("date,a\n03/04/2020,2\n04/04/2020,3\n", "--data.day_first", ("time", "see below")),
        ("date,a\nnever,x\nsoon,y\n", "no timestamp in lines 2, 3", ("unreadable timestamps", "2")),
        ("date;a\n2020-01-01;1,234\n2020-01-02;1,5x\n", "--data.decimal", ("rows", "2")),
        (
            "unique_id,ds,y\na,2020-01-01,1\na,2020-01-01,2\nb,2020-01-01,3\n",
            "duplicate timestamps",
            ("duplicates", "1"),
        ),
    ],
)
def test_whatever_can_be_told_is_told(write_csv, text: str, problem: str, fact) -> None:
    description = describe_dataset(write_csv(text))
    assert description.problem is not None
    assert problem in description.problem
    label, expected = fact
    assert expected in facts_of(description)[label]


def test_columns_of_text_have_no_statistics(write_csv) -> None:
    description = describe_dataset(write_csv("town,code,a\nBonn,2000-99,1\nUlm,2000-98,2\n"))
    assert [one.name for one in description.channels] == ["a"]
    assert facts_of(description)["columns without a number"] == "'town', 'code'"


@pytest.mark.parametrize(
    ("days", "step", "gaps"),
    [([1, 2, 3, 4], "1 d", "0"), ([4, 3, 2, 1], "1 d, backwards", "0"),
     ([1, 2, 3, 4, 7], "1 d mostly", "1"), ([1, 1], "unknown", "0")],
)  # fmt: skip
def test_the_step_of_a_refused_file_is_told_as_it_is(write_csv, days, step: str, gaps) -> None:
    path = write_csv("date,a\n" + "".join(f"2020-01-0{day},\n" for day in days))
    facts = facts_of(describe_dataset(path))
    assert (facts["step"], facts["gaps"][0]) == (step, gaps)


def test_a_damaged_catalog_file_is_described_with_its_problem(tmp_path: Path) -> None:
    (tmp_path / "ETTh1.csv").write_text("date,HUFL\n2016-07-01,1\n2016-07-02,2\n")
    description = describe_dataset("ETTh1", root=tmp_path)
    assert description.problem is not None
    assert "is not the ETTh1 of the catalog" in description.problem
    assert description.channels[0].count == 2


@pytest.mark.parametrize("content", ["", b"\x00\x01"])
def test_where_there_is_nothing_to_read_the_reason_is_raised(write_csv, content) -> None:
    with pytest.raises(DataError, match=r"is empty|binary"):
        describe_dataset(write_csv(content))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        describe_dataset(tmp_path / "nowhere.csv")


def test_what_a_policy_mended_is_told_as_the_file_has_it(write_csv) -> None:
    days = [1, 2, 2, 2, 3, 4, 7, 8, 9]
    path = write_csv("date,a\n" + "".join(f"2020-01-0{day},{i}\n" for i, day in enumerate(days)))
    reading = Reading(missing="mask", duplicates="first", gaps="regularise")
    facts = facts_of(describe_dataset(path, reading=reading))
    assert facts["rows"] == "9 in the file, 9 as used and in the statistics below"
    assert facts["duplicates"] == "2 rows merged, first kept"
    assert facts["gaps"] == "2 rows missing, inserted without values"


def test_a_policy_without_work_changes_no_fact(make_csv) -> None:
    path = make_csv(12)
    reading = Reading(missing="mask", duplicates="first", gaps="regularise")
    plain, ready = describe_dataset(path), describe_dataset(path, reading=reading)
    assert plain.facts == ready.facts
    facts = facts_of(plain)
    assert (facts["rows"], facts["duplicates"], facts["gaps"]) == ("12", "0", "0")


def test_rows_of_the_file_are_told_apart_from_those_used(write_csv) -> None:
    days = [1, 2, 4, 5, 6]
    path = write_csv("date,a\n" + "".join(f"2020-01-0{day},{day}\n" for day in days))
    reading = Reading(missing="mask", gaps="regularise")
    description = describe_dataset(path, reading=reading)
    facts = facts_of(description)
    assert facts["rows"] == "5 in the file, 6 as used and in the statistics below"
    assert (facts["duplicates"], facts["gaps"][:5]) == ("0", "1 row")
    assert (description.channels[0].count, description.channels[0].missing) == (5, 1)
