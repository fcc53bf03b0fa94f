"""Users' own files that must load, and what is recognised in them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsattn.data import Panel, Reading, load_panel, prepare
from tsattn.errors import DataError

LONG = "unique_id,ds,y\n" + "".join(f"a,2020-01-{day:02},{day}\n" for day in range(1, 31))


def dates(freq: str, periods: int, style: str = "%Y-%m-%d", start: str = "2020-01-01") -> list[str]:
    return list(pd.date_range(start, periods=periods, freq=freq).strftime(style))


def wide(cells: list[str], sep: str = ",") -> str:
    lines = [f"{cell}{sep}{index}" for index, cell in enumerate(cells)]
    return "\n".join([f"date{sep}a", *lines]) + "\n"


def test_a_wide_file_loads_in_its_own_column_order(make_csv) -> None:
    path = make_csv(30)
    panel = load_panel(str(path))
    assert (panel.name, panel.path, panel.layout, panel.info) == ("own", path, "wide", None)
    assert panel.channels == ("a", "b")
    assert panel.step == pd.Timedelta(hours=1)
    assert (panel.series[0].values_RC == [[i + 0.25, 2 * i] for i in range(30)]).all()
    assert str(panel.start) == "2020-03-04 00:00:00"
    assert panel.notes == ("delimiter: comma", "layout: wide", "time column: 'date'", "step: 1 h")


@pytest.mark.parametrize(
    ("sep", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "bar")]
)
def test_the_delimiter_is_recognised_and_noted(make_csv, sep: str, name: str) -> None:
    panel = load_panel(make_csv(sep=sep))
    assert panel.series[0].values_RC[1].tolist() == [1.25, 2]
    assert f"delimiter: {name}" in panel.notes


@pytest.mark.parametrize("given", [";", "tab"])
def test_the_delimiter_can_be_given(make_csv, given: str) -> None:
    path = make_csv(sep="\t" if given == "tab" else given)
    assert load_panel(path, reading=Reading(delimiter=given)).channels == ("a", "b")


def test_a_decimal_comma_is_recognised_and_noted(make_csv) -> None:
    panel = load_panel(make_csv(sep=";", decimal=","))
    assert panel.series[0].values_RC[3].tolist() == [3.25, 6]
    assert "decimal sign: comma, as in '0,25'" in panel.notes


def test_thousands_are_undone_once_the_decimal_sign_is_proved(write_csv) -> None:
    european = "date;a;b\n2020-01-01;1.234,5;1.000\n2020-01-02;12.345.678,5;-2.000\n"
    assert load_panel(write_csv(european)).series[0].values_RC.tolist() == [
        [1234.5, 1000],
        [12345678.5, -2000],
    ]
    american = 'date,a\n2020-01-01,"1,234.5"\n2020-01-02,"1,000"\n'
    assert load_panel(write_csv(american)).series[0].values_RC.tolist() == [[1234.5], [1000]]


@pytest.mark.parametrize(("decimal", "value"), [(",", 1.234), (".", 1234.0)])
def test_the_decimal_sign_can_be_given(write_csv, decimal: str, value: float) -> None:
    path = write_csv("date;a\n2020-01-01;1,234\n2020-01-02;2,345\n")
    panel = load_panel(path, reading=Reading(decimal=decimal))
    assert panel.series[0].values_RC[0, 0] == value


def test_a_point_is_the_decimal_sign_where_any_number_proves_it(write_csv) -> None:
    panel = load_panel(write_csv("date;a\n2020-01-01;1.234\n2020-01-02;0.5\n"))
    assert panel.series[0].values_RC[:, 0].tolist() == [1.234, 0.5]


def test_a_trailing_delimiter_and_a_decimal_comma_go_together(write_csv) -> None:
    panel = load_panel(write_csv("date;a;b;\n2020-01-01;1,5;2;\n2020-01-02;2,5;3;\n"))
    assert panel.channels == ("a", "b")
    assert panel.series[0].values_RC.tolist() == [[1.5, 2], [2.5, 3]]


def test_numbers_are_read_exactly(write_csv) -> None:
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    lines = [
        f"{time},{value!r}" for time, value in zip(dates("D", 200), values.tolist(), strict=True)
    ]
    panel = load_panel(write_csv("\n".join(["date,a", *lines])))
    assert (panel.series[0].values_RC[:, 0] == values).all()


@pytest.mark.parametrize(
    ("style", "start", "note"),
    [
        ("%d/%m/%Y", "2020-01-01", "day first (another order gives no dates)"),
        ("%m/%d/%Y", "2020-01-01", "month first (another order gives no dates)"),
        ("%d.%m.%Y", "2020-01-01", "day first (another order gives no dates)"),
        ("%d-%m-%y", "2020-01-01", "day first (the only order that gives regular steps)"),
        ("%Y/%m/%d", "2020-01-01", "year first"),
        ("%Y%m%d", "2020-01-01", "%Y%m%d"),
        ("%d %b %Y", "2020-01-01", "with month names"),
        ("%d-%b-%Y", "2020-01-01", "with month names"),
        ("%B %d, %Y", "2020-01-01", "with month names"),
    ],
)
def test_dates_that_prove_their_order_are_read(write_csv, style, start, note) -> None:
    cells = dates("D", 40, style, start)
    if "," in cells[0]:
        cells = [f'"{cell}"' for cell in cells]
    panel = load_panel(write_csv(wide(cells)))
    assert (panel.series[0].times == pd.date_range(start, periods=40)).all()
    assert f"dates: {note}" in panel.notes


def test_regular_steps_prove_the_order_where_no_number_is_above_twelve(make_csv) -> None:
    panel = load_panel(make_csv(60, date_format="%d/%m/%Y %H:%M"))
    assert str(panel.start) == "2020-03-04 00:00:00"
    assert "dates: day first (the only order that gives regular steps)" in panel.notes
    panel = load_panel(make_csv(60, date_format="%m/%d/%Y %I:%M %p"))
    assert str(panel.start) == "2020-03-04 00:00:00"
    assert panel.step == pd.Timedelta(hours=1)


@pytest.mark.parametrize(("day_first", "start"), [(True, "2020-04-03"), (False, "2020-03-04")])
def test_the_order_of_ambiguous_dates_can_be_given(make_csv, day_first: bool, start: str) -> None:
    path = make_csv(10, date_format="%m/%d/%Y %H:%M")
    panel = load_panel(path, reading=Reading(day_first=day_first))
    assert str(panel.start.date()) == start
    assert any("as --data.day_first says" in note for note in panel.notes)


def test_the_dates_of_exchange_rate_are_read(write_csv) -> None:
    cells = [f"1990/1/{day} 0:00" for day in range(1, 32)]
    panel = load_panel(write_csv(wide(cells)))
    assert (panel.series[0].times == pd.date_range("1990-01-01", periods=31)).all()


def test_one_utc_offset_is_dropped_and_several_are_brought_to_utc(write_csv) -> None:
    one = [f"2020-01-01T{hour:02}:00:00+01:00" for hour in range(5)]
    panel = load_panel(write_csv(wide(one)))
    assert str(panel.start) == "2020-01-01 00:00:00"
    assert "UTC offset +01:00 is dropped: times stay as written" in panel.notes
    local = pd.date_range("2020-03-29", periods=6, freq="h", tz="Europe/Berlin")
    panel = load_panel(write_csv(wide([time.isoformat() for time in local])))
    assert str(panel.start) == "2020-03-28 23:00:00"
    assert "UTC offsets differ: times are taken in UTC" in panel.notes
    assert any("--data.time_zone (such as Europe/Berlin)" in note for note in panel.notes)


def test_marks_line_ends_quotes_and_blank_lines_do_not_matter(make_csv, write_csv) -> None:
    plain = make_csv(10).read_bytes()
    expected = load_panel(make_csv(10))
    quoted = b"\n".join(
        b",".join(b'"%s"' % cell for cell in line.split(b",")) for line in plain.splitlines()
    )
    variants = {
        "mark": b"\xef\xbb\xbf" + plain,
        "crlf": plain.replace(b"\n", b"\r\n"),
        "old mac": plain.replace(b"\n", b"\r"),
        "quotes": quoted,
        "blank lines at the end": plain + b"\n\n  \n,,\n",
        "blank lines between": plain.replace(b"\n", b"\n\n"),
        "no end of line": plain.rstrip(),
        "trailing delimiter": plain.replace(b"\n", b",\n"),
        "utf-16": plain.decode().encode("utf-16"),
    }
    for name, content in variants.items():
        panel = load_panel(write_csv(content))
        assert panel.channels == expected.channels, name
        assert (panel.series[0].times == expected.series[0].times).all(), name
        assert (panel.series[0].values_RC == expected.series[0].values_RC).all(), name


def test_names_in_windows_1252_are_read_and_noted(write_csv) -> None:
    panel = load_panel(write_csv("date,Wärme\n2020-01-01,1\n2020-01-02,2\n".encode("cp1252")))
    assert panel.channels == ("Wärme",)
    assert any("Windows-1252" in note for note in panel.notes)


def test_the_time_column_is_found_anywhere_or_taken_as_given(write_csv) -> None:
    rows = "".join(f"{i},2020-01-{i:02},{2 * i}\n" for i in range(1, 6))
    panel = load_panel(write_csv("a,when,b\n" + rows))
    assert (panel.time_column, panel.channels) == ("when", ("a", "b"))
    numbers = "".join(f"{2000 + i},{1990 + i}\n" for i in range(5))
    path = write_csv("season,year\n" + numbers)
    panel = load_panel(path, reading=Reading(time_column="season"))
    assert (panel.time_column, str(panel.start.date())) == ("season", "2000-01-01")


@pytest.mark.parametrize("sign", ["-", "/"])
def test_a_column_of_months_is_found_without_being_named(write_csv, sign: str) -> None:
    cells = [f"{2000 + month // 12}{sign}{month % 12 + 1:02}" for month in range(20)]
    path = write_csv("month,a\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    panel = load_panel(path)
    assert (panel.time_column, panel.channels) == ("month", ("a",))
    assert (str(panel.end.date()), "step: 1 month" in panel.notes) == ("2001-08-01", True)


@pytest.mark.parametrize("last", ["2000-99", "2000-13", "2000-1", "2000/03", "200003", "x"])
def test_codes_are_not_taken_for_months(write_csv, last: str) -> None:
    path = write_csv(f"code,a\n2000-01,1\n2000-02,2\n{last},3\n")
    with pytest.raises(DataError, match="no time column"):
        load_panel(path)


def test_months_beside_a_time_column_are_not_the_time(write_csv) -> None:
    path = write_csv("time,code,a\n" + "".join(f"{i},2000-0{i},{i}\n" for i in range(1, 6)))
    with pytest.raises(DataError, match="column 'code' has no number at all"):
        load_panel(path)


def test_the_nameless_index_that_pandas_writes_is_the_time(write_csv) -> None:
    frame = pd.DataFrame({"a": range(5)}, index=pd.date_range("2020", periods=5))
    panel = load_panel(write_csv(frame.to_csv()))
    assert (panel.time_column, panel.channels) == ("date", ("a",))


def test_a_constant_channel_loads_with_a_note(write_csv) -> None:
    rows = "".join(f"2020-01-{i:02},7,{i}\n" for i in range(1, 31))
    panel = load_panel(write_csv("date,flat,b\n" + rows))
    assert "constant channel, standardised with scale 1: 'flat'" in panel.notes
    prepared = prepare(panel, context=3, horizon=2)
    assert prepared.scaler.scale_SC[0, 0] == 1
    assert prepared.train.values_RC.isfinite().all()


def test_a_long_file_has_series_of_unequal_length_in_any_column_order(write_csv) -> None:
    lines = ["y,ds,unique_id"]
    lengths = {"b": 40, "007": 25}
    for day in range(40):
        time = f"{pd.Timestamp('2020-01-01') + pd.Timedelta(days=day):%Y-%m-%d}"
        for name, length in lengths.items():
            if day < length:
                lines.append(f"{day},{time},{name}")
    panel = load_panel(write_csv("\n".join(lines)))
    assert (panel.layout, panel.ids, panel.lengths) == ("long", ("b", "007"), (40, 25))
    assert (panel.channels, panel.time_column) == (("y",), "ds")
    assert panel.series[1].values_RC[:, 0].tolist() == list(range(25))
    prepared = prepare(panel, context=5, horizon=2)
    assert set(prepared.train.series_W.tolist()) == {0, 1}
    assert prepared.scaler.mean_SC.shape == (2, 1)


def test_further_columns_of_a_long_file_are_named_as_unused(write_csv) -> None:
    text = LONG.replace("unique_id,ds,y", "unique_id,ds,y,price").replace("\n", ",9\n")
    panel = load_panel(write_csv(text.replace("price,9", "price")))
    assert "columns not used: price" in panel.notes


def test_day_and_month_of_a_long_file_are_proved_series_by_series(write_csv) -> None:
    rows = [f"{name},{day},1" for name in "ab" for day in dates("h", 40, "%d/%m/%Y %H:00")]
    panel = load_panel(write_csv("\n".join(["unique_id,ds,y", *rows])))
    assert str(panel.start) == "2020-01-01 00:00:00"
    assert "dates: day first (the only order that gives regular steps)" in panel.notes


def test_a_long_file_can_be_read_as_wide_only_when_asked(write_csv) -> None:
    with pytest.raises(DataError, match="column 'unique_id' has no number at all"):
        load_panel(write_csv(LONG), reading=Reading(layout="wide"))


def test_frames_load_like_files(make_csv) -> None:
    from_file = load_panel(make_csv(30))
    frame = pd.read_csv(make_csv(30), parse_dates=["date"])
    for variant in (frame, frame.set_index("date"), frame.astype({"date": str, "a": str})):
        panel = load_panel(variant)
        assert panel.channels == from_file.channels
        assert (panel.series[0].times == from_file.series[0].times).all()
        assert (panel.series[0].values_RC == from_file.series[0].values_RC).all()
    assert load_panel(frame).sha256 == load_panel(frame.copy()).sha256
    assert load_panel(frame).sha256 != load_panel(frame.assign(a=1.0)).sha256


def test_a_frame_is_not_changed(make_csv) -> None:
    frame = pd.read_csv(make_csv(30))
    before = frame.copy(deep=True)
    load_panel(frame)
    pd.testing.assert_frame_equal(frame, before)


def panel_or_refusal(frame: pd.DataFrame) -> Panel | str:
    try:
        return load_panel(frame)
    except DataError as error:
        return str(error)


@settings(max_examples=40)
@given(
    start=st.datetimes(min_value=pd.Timestamp("1980-01-01"), max_value=pd.Timestamp("2060-01-01")),
    minutes=st.sampled_from([1, 10, 15, 60, 1440, 10080]),
    rows=st.integers(2, 60),
    style=st.sampled_from(["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%y %H:%M"]),
)
def test_the_order_of_day_and_month_is_right_or_asked_for(start, minutes, rows, style) -> None:
    first = pd.Timestamp(start).floor("min")
    times = pd.date_range(first, periods=rows, freq=pd.Timedelta(minutes=minutes))
    frame = pd.DataFrame({"date": times.strftime(style), "a": range(rows)})
    outcome = panel_or_refusal(frame)
    if isinstance(outcome, str):
        assert "--data.day_first" in outcome
    else:
        assert (outcome.series[0].times == times).all()
