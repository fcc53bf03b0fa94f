"""Numbers of frames and of files beside decimal commas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Reading, load_panel
from tsattn.errors import DataError


@pytest.mark.parametrize("numbers", ["float64", "Float64", "float32", "object"])
@pytest.mark.parametrize("decimal", [None, ","])
def test_numbers_of_a_frame_stay_as_they_are_beside_text_with_decimal_commas(
    decimal: str | None, numbers: Any
) -> None:
    """1.234 is a thousand and more in such a file, but no number of a frame is written."""
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024", periods=60, freq="h"),
            "a": ["1,5", "2.345,5"] * 30,
            "b": pd.array([1.234, 0.5] * 30, dtype=numbers),
        }
    )
    values_RC = load_panel(frame, reading=Reading(decimal=decimal)).series[0].values_RC
    np.testing.assert_allclose(values_RC[:2], [[1.5, 1.234], [2345.5, 0.5]], rtol=1e-6)


def test_objects_that_are_numbers_may_lack() -> None:
    frame = pd.DataFrame({"date": pd.date_range("2024", periods=4), "a": [1.5, None, 2, np.nan]})
    panel = load_panel(frame.astype({"a": object}), reading=Reading(missing="mask"))
    np.testing.assert_array_equal(panel.series[0].values_RC[:, 0], [1.5, np.nan, 2, np.nan])


def test_points_between_thousands_are_undone_beside_flags(write_csv: Callable[..., Path]) -> None:
    rows = [f"2020-01-{day:02};{day % 2 == 0};{day},5;1.500" for day in range(1, 31)]
    path = write_csv("\n".join(["date;open;a;b", *rows]) + "\n")
    panel = load_panel(path, reading=Reading(covariates=("open",)))
    assert panel.series[0].values_RC[:2].tolist() == [[0, 1.5, 1500], [1, 2.5, 1500]]


def days(header: str, *rows: str) -> str:
    """Return a file with a row a day, each cell of ``rows`` behind its date."""
    sign = header[len("date")]
    lines = [f"2020-01-{day:02}{sign}{row}" for day, row in enumerate(rows, 1)]
    return "\n".join([header, *lines]) + "\n"


DOUBTFUL = {
    "floats": days("date;a;b", "1;987", "2;1.234"),
    "quotes": days("date;a;b", '"1";"987"', '"2";"1.234"'),
    "one quoted name": days('date;a;"b"', "1;987", "2;1.234"),
    "an empty cell": days("date;a;b", "1;", "2;1.234"),
    "a word for nothing": days("date;a;b", "NA;987", "2;1.234", "3;5"),
    "both signs": days("date,a,b", '"1,234",987', '2,"1.234"'),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_thousand_or_a_fraction_is_never_guessed_whatever_stands_beside_it(
    write_csv: Callable[..., Path], case: str
) -> None:
    with pytest.raises(DataError, match="may mean a thousand or a fraction, and no other number"):
        load_panel(write_csv(DOUBTFUL[case]), reading=Reading(missing="mask"))


NAN = float("nan")
PROVED: dict[str, tuple[str, list[list[float]]]] = {
    "point in quotes": (days("date;a", '"1.234"', '"0.5"'), [[1.234], [0.5]]),
    "point beside an empty cell": (
        days("date;a;b", "1.234;", "2.345;12.5", "1;2"),
        [[1.234, NAN], [2.345, 12.5], [1, 2]],
    ),
    "point in another column": (
        days("date,a,b", '"1,234",12.5', "2,3"),
        [[1234, 12.5], [2, 3]],
    ),
    "point in an exponent": (days("date;a", "1.234", "NaN", "1.5e3"), [[1.234], [NAN], [1500]]),
    "comma in quotes": (days("date;a;b", '"1.234";"987"', '"2";"0,5"'), [[1234, 987], [2, 0.5]]),
    "comma beside an empty cell": (days("date;a;b", "1.234;", "2;0,5"), [[1234, NAN], [2, 0.5]]),
    "points in a million": (days("date;a;b", "987;1", "1.234;1.000.000"), [[987, 1], [1234, 1e6]]),
}  # fmt: skip


@pytest.mark.parametrize("case", PROVED)
def test_any_number_of_any_channel_may_prove_the_decimal_sign(
    write_csv: Callable[..., Path], case: str
) -> None:
    text, expected = PROVED[case]
    panel = load_panel(write_csv(text), reading=Reading(missing="mask"))
    np.testing.assert_array_equal(panel.series[0].values_RC, expected)


def test_text_that_is_no_number_proves_nothing(write_csv: Callable[..., Path]) -> None:
    path = write_csv(days("date;a", '"n.a."', '"1.234"', '"v0.5"'))
    with pytest.raises(DataError, match=r"'1\.234' \(line 3, column 'a'\) may mean"):
        load_panel(path, reading=Reading(missing="mask"))


def test_covariates_may_leave_the_decimal_sign_to_the_other_channels(
    write_csv: Callable[..., Path],
) -> None:
    rows = [f'"{day}.5";"1.{day:03}"' for day in range(1, 31)]
    path = write_csv(days("date;load;price", *rows))
    panel = load_panel(path, reading=Reading(covariates=("price",)))
    assert panel.series[0].values_RC[1].tolist() == [2.5, 1.002]


def test_numbers_in_objects_of_a_frame_do_not_prove_how_its_text_is_written() -> None:
    frame = pd.DataFrame({"date": pd.date_range("2024", periods=3), "a": ["1,234", 0.5, 2]})
    with pytest.raises(DataError, match="may mean a thousand or a fraction"):
        load_panel(frame)


def test_points_are_not_looked_for_in_a_plain_file(
    write_csv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading every number as text as well would take several times as long."""
    monkeypatch.delattr("tsattn.data.decimals._point_evidence")
    panel = load_panel(
        write_csv(days("date,a,b", "1.234,", "2.345,12.5")), reading=Reading(missing="mask")
    )
    assert panel.series[0].values_RC[0, 0] == 1.234
