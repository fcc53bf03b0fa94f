"""Users' own files that must be refused, and what the message has to say."""

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Reading, load_panel
from tsattn.errors import DataError


def lines_of(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def refusal(path, **reading) -> str:
    with pytest.raises(DataError) as caught:
        load_panel(path, reading=Reading(**reading))
    return str(caught.value)


GOOD = tuple(f"2020-01-0{day},{day}" for day in range(1, 10))

BAD_FILES = {
    "empty file": ("", ["is empty", "header line"]),
    "only blank lines": ("\n \n\n", ["is empty"]),
    "header only": (lines_of("date,a"), ["no data rows"]),
    "no time column": (
        lines_of("x,a", "1,2", "2,3"),
        ["no time column", "'x', 'a'", "--data.time_column", "2020-12-31"],
    ),
    "no header": (lines_of(*GOOD), ["no header", "'2020-01-01'", "column names first"]),
    "no channels": (lines_of("date", "2020-01-01"), ["no channels", "'date'"]),
    "unparsable timestamps": (
        lines_of("date,a", GOOD[0], "soon,2", GOOD[2], ",4"),
        ["no timestamp in lines 3, 5", "'soon'", "column 'date'", "such as 2020-12-31"],
    ),
    "a day that does not exist": (
        lines_of("date,a", "2021-02-27,1", "2021-02-30,2", "2021-03-01,3"),
        ["no timestamp in line 3: '2021-02-30'"],
    ),
    "an hour that does not exist": (
        lines_of("date,a", "2021-02-27 23:00,1", "2021-02-27 24:00,2", "2021-02-28 01:00,3"),
        ["no timestamp in line 3: '2021-02-27 24:00'"],
    ),
    "seconds since 1970": (
        lines_of("timestamp,a", "1577836800,1", "1577840400,2"),
        ["no timestamp in lines 2, 3", "numbers are not taken for dates"],
    ),
    "unsorted timestamps": (
        lines_of("date,a", GOOD[0], GOOD[2], GOOD[1], GOOD[3]),
        ["unsorted timestamps at line 4 (2020-01-02", "sort the rows"],
    ),
    "timestamps that run backwards": (
        lines_of("date,a", *reversed(GOOD)),
        ["run backwards", "oldest first"],
    ),
    "duplicate timestamps": (
        lines_of("date,a", GOOD[0], GOOD[1], GOOD[1], GOOD[2], GOOD[3]),
        ["duplicate timestamps at line 4 (2020-01-02", "keep one row"],
    ),
    "many series in one wide file": (
        lines_of("shop,date,a", *(f"{s},{row}" for row in GOOD for s in (1, 2))),
        ["duplicate timestamps", "unique_id, ds, y"],
    ),
    "many series below each other": (
        lines_of("store,day,sales", *(f"{s},{row}" for s in ("north", "south") for row in GOOD)),
        ["looks like a long table: column 'store' names 2 series", "'store' to unique_id", "to ds"],
    ),
    "many series side by side": (
        lines_of("day,store,sales", *(r.replace(",", f",{s},") for r in GOOD for s in "xyz")),
        ["looks like a long table: column 'store' names 3 series"],
    ),
    "many numbered series below each other": (
        lines_of("store,day,sales", *(f"{s},{row}" for s in (7, 8) for row in GOOD)),
        ["looks like a long table: column 'store' names 2 series"],
    ),
    "a town beside time that repeats": (
        lines_of("town,date,a", *(f"Bonn,{row}" for row in GOOD * 2)),
        ["unsorted timestamps at line 11"],
    ),
    "irregular step": (
        lines_of("date,a", *GOOD[:3], *GOOD[4:]),
        [
            "irregular step: usual is 1 d",
            "line 5 (2020-01-05 00:00:00) comes 2 d after",
            "resample",
        ],
    ),
    "a missing month": (
        lines_of("date,a", *(f"2020-{m:02}-01,{m}" for m in (1, 2, 3, 5, 6, 7))),
        ["usual is 1 month", "line 5 (2020-05-01"],
    ),
    "a missing business day": (
        lines_of("date,a", *(f"2020-01-{d:02},1" for d in (6, 7, 8, 10, 13, 14, 15, 16, 17))),
        ["usual is a business day", "line 5 (2020-01-10"],
    ),
    "text in a channel": (
        lines_of("date,a,b", "2020-01-01,1,2", "2020-01-02,x,2", "2020-01-03,1,n/a"),
        ["line 3, column 'a' is 'x'", "line 4, column 'b' is 'n/a'", "fill, interpolate or remove"],
    ),
    "an empty cell": (lines_of("date,a", GOOD[0], "2020-01-02,"), ["line 3, column 'a' is empty"]),
    "NaN": (lines_of("date,a", GOOD[0], "2020-01-02,NaN"), ["line 3, column 'a' is 'NaN'"]),
    "infinity": (lines_of("date,a", "2020-01-01,-inf", GOOD[1]), ["line 2, column 'a' is '-inf'"]),
    "a number beyond float64": (
        lines_of("date,a", "2020-01-01,1e999", GOOD[1]),
        ["line 2, column 'a' is '1e999'"],
    ),
    "true and false": (
        lines_of("date,a", "2020-01-01,True", "2020-01-02,False"),
        ["line 2, column 'a' is 'True'"],
    ),
    "a column of text": (
        lines_of("date,town,a", *(row.replace(",", ",Bonn,") for row in GOOD)),
        ["column 'town' has no number at all: remove it", "unique_id, ds, y"],
    ),
    "duplicate column names": (
        lines_of("date,a,b,a", "2020-01-01,1,2,3"),
        ["duplicate column names: 'a' (columns 2, 4)"],
    ),
    "a nameless column": (
        lines_of(",date,a", *(f"{i},{row}" for i, row in enumerate(GOOD))),
        ["column 1 has no name", "remove it"],
    ),
    "ragged rows": (
        lines_of("date,a,b", "2020-01-01,1,2", "2020-01-02,1", "2020-01-03,1,2,3"),
        ["line 3 has 2, line 4 has 4 cells", "header has 3"],
    ),
    "decimal commas between commas": (
        lines_of("date,a", "2020-01-01,1,5", "2020-01-02,2,5"),
        ["line 2 has 3", "header has 2", "semicolons"],
    ),
    "one row": (lines_of("date,a", GOOD[0]), ["1 data row is too few"]),
    "two columns of time": (
        lines_of("start,end,a", "2020-01-01,2020-01-02,1", "2020-01-02,2020-01-03,1"),
        ["'start', 'end' all hold timestamps", "--data.time_column start"],
    ),
    "month names without a year": (
        lines_of("date,a", "01 May,1", "02 May,2", "03 May,3"),
        ["no timestamp in lines 2, 3, 4"],
    ),
    "ambiguous dates": (
        lines_of("date,a", "03/04/2020 00:00,1", "03/04/2020 01:00,2"),
        [
            "'03/04/2020 00:00' can be read day first (2020-04-03) or month first (2020-03-04)",
            "--data.day_first true or --data.day_first false",
        ],
    ),
    "ambiguous two-digit years": (
        lines_of("date,a", "13/01/20,1", "14/01/20,2", "15/01/20,3"),
        ["can be read day first (2020-01-13) or year first (2013-01-20)", "--data.day_first"],
    ),
    "day first and month first mixed": (
        lines_of("date,a", "13/01/2020,1", "01/14/2020,2", "15/01/2020,3"),
        ["'13/01/2020' has the day first, '01/14/2020' the month"],
    ),
    "offsets for some rows only": (
        lines_of("date,a", "2020-01-01T00:00:00Z,1", "2020-01-01T01:00:00,2"),
        ["some timestamps have a UTC offset and others none"],
    ),
    "an offset beyond a day": (
        lines_of("date,a", "2020-01-01T00:00:00+99:99,1", "2020-01-01T01:00:00+99:99,2"),
        ["no timestamp in lines 2, 3: '2020-01-01T00:00:00+99:99'"],
    ),
    "thousand or fraction after a comma": (
        lines_of("date;a", "2020-01-01;1,234", "2020-01-02;2,345"),
        ["'1,234' (line 2, column 'a')", "--data.decimal ,", "--data.decimal ."],
    ),
    "thousand or fraction after a point": (
        lines_of("date;a", "2020-01-01;1.234", "2020-01-02;2.345"),
        ["'1.234' (line 2, column 'a')", "--data.decimal ,", "--data.decimal ."],
    ),
    "two decimal signs": (
        lines_of("date;a;b", "2020-01-01;1.234,5;1,000.5", "2020-01-02;1;1"),
        ["'1.234,5' (line 2, column 'a') has a comma, '1,000.5' (line 2, column 'b') a point"],
    ),
    "two possible delimiters": (
        lines_of("date;x,y", "2020-01-01;1,5", "2020-01-02;2,5"),
        ["both comma and semicolon", "'date;x,y'", "--data.delimiter"],
    ),
    "zero bytes": (b"date,a\n\x00\x01\x02", ["binary file", "offset 7"]),
    "a spreadsheet": (b"PK\x03\x04rest", ["spreadsheet", "export the sheet as CSV"]),
    "a gzip archive": (b"\x1f\x8brest", ["gzip", "unpack"]),
    "text in an unknown encoding": (
        b"date,a\n2020-01-01,\xe9\n",
        ["not UTF-8 text (byte 0xe9 in line 2)", "save it as UTF-8"],
    ),
    "a long file without a value": (
        lines_of("unique_id,ds,y", "a,2020-01-01,1", "a,2020-01-02,"),
        ["line 3, column 'y' is empty"],
    ),
    "a long file with a duplicate": (
        lines_of("unique_id,ds,y", "a,2020-01-01,1", "a,2020-01-02,1", "a,2020-01-02,1"),
        ["series 'a': duplicate timestamps at line 4"],
    ),
    "a long file with a gap": (
        lines_of("unique_id,ds,y", *(f"a,{row}" for row in GOOD[:4] + GOOD[5:])),
        ["series 'a': irregular step: usual is 1 d, but line 6"],
    ),
    "a long file with two steps": (
        lines_of("unique_id,ds,y", *(f"a,{row}" for row in GOOD), *(f"b,{r}" for r in GOOD[::2])),
        ["series 'b': its step is 2 d, that of 'a' 1 d"],
    ),
    "a long file without an id": (
        lines_of("unique_id,ds,y", "a,2020-01-01,1", ",2020-01-02,1"),
        ["unique_id is empty in line 3"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_with_what_and_where(write_csv, case: str) -> None:
    content, expected = BAD_FILES[case]
    path = write_csv(content)
    before = path.read_bytes()
    message = refusal(path)
    assert str(path) in message
    for text in expected:
        assert text in message
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ({"time_column": "dates"}, "no time column 'dates' (nearest: date)"),
        ({"layout": "long"}, "unique_id, ds, y missing among date, a"),
        ({"decimal": "x"}, "decimal sign 'x' is unknown"),
        ({"decimal": ","}, "',' cannot be both delimiter and decimal sign"),
        ({"delimiter": "ab"}, "delimiter 'ab' cannot separate cells"),
        ({"delimiter": ";"}, "no channels: the header has one column 'date,a'"),
    ],
)
def test_an_answer_that_does_not_fit_the_file_is_refused(write_csv, reading, expected) -> None:
    assert expected in refusal(write_csv(lines_of("date,a", *GOOD)), **reading)


def test_the_time_column_of_the_long_layout_is_fixed(write_csv) -> None:
    path = write_csv(lines_of("unique_id,ds,y", *(f"a,{row}" for row in GOOD)))
    assert "the time column of the long layout is ds" in refusal(path, time_column="y")


def test_row_numbers_count_blank_lines_and_lines_inside_quotes(write_csv) -> None:
    assert "line 5, column 'a'" in refusal(
        write_csv(lines_of("date,a", "", GOOD[0], "", "2020-01-02,x"))
    )
    assert "line 5, column 'a'" in refusal(
        write_csv(lines_of('"date",a,"two\nlines"', "", '"2020-01-01",1,2', "2020-01-02,x,2"))
    )


def test_many_bad_cells_are_counted_and_not_all_listed(write_csv) -> None:
    rows = [f"{time:%Y-%m-%d},x" for time in pd.date_range("2020-01-01", periods=500)]
    message = refusal(write_csv(lines_of("date,a", *rows)))
    assert "and 494 more cells" in message
    assert len(message) < 800


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (pd.DataFrame({"a": []}), "the frame has no rows"),
        (pd.DataFrame({"a": [1.0, 2.0]}), "the frame: no time column"),
        (
            pd.DataFrame({"t": pd.date_range("2020", periods=3), "a": [1, np.nan, 3]}),
            "row 1, column 'a' is 'NaN'",
        ),
        (
            pd.DataFrame({"t": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-02"]), "a": 1}),
            "duplicate timestamps at row 2",
        ),
        (
            pd.DataFrame([["2020-01-01", 1, 2]], columns=["t", "a", "a"]),
            "duplicate column names: 'a' (columns 2, 3)",
        ),
    ],
)
def test_a_bad_frame_is_refused_with_rows_counted_from_zero(frame, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        load_panel(frame)
    assert expected in str(caught.value)
