"""Frames of every shape: what may not change a forecast, and what must be refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forecast.made import long_frame, melted, wide_frame
from tsattn.data import Reading
from tsattn.errors import DataError
from tsattn.forecast import Forecaster

shared_fixtures = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@shared_fixtures
@given(order=st.permutations(["date", "a", "b", "c"]), seed=st.integers(0, 2**20))
def test_order_of_columns_does_not_matter_and_is_kept(
    wide: Forecaster, order: list[str], seed: int
) -> None:
    frame = wide_frame(40, seed=seed)
    made = wide.predict(frame[order])
    assert made.columns.tolist() == order
    pd.testing.assert_frame_equal(made[frame.columns], wide.predict(frame))


@shared_fixtures
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_order_of_rows_does_not_matter_where_sorting_is_asked_for(
    wide: Forecaster, long: Forecaster, data: st.DataObject, seed: int
) -> None:
    for forecaster, frame, time in (
        (wide, wide_frame(20, seed=seed), "date"),
        (long, long_frame((16, 14, 13), seed=seed), "ds"),
    ):
        order = data.draw(st.permutations(range(len(frame))))
        mixed = frame.iloc[order]
        made = forecaster.predict(mixed, sort=True)
        keys = [name for name in ("unique_id", time) if name in made]
        pd.testing.assert_frame_equal(
            made.sort_values(keys, ignore_index=True),
            forecaster.predict(frame).sort_values(keys, ignore_index=True),
        )


@shared_fixtures
@given(
    dtype=st.sampled_from(["float64", "float32", "int64", "Int64", "Float32", "object", "str"]),
    seed=st.integers(0, 2**20),
)
def test_dtype_of_the_numbers_does_not_matter(wide: Forecaster, dtype: str, seed: int) -> None:
    frame = wide_frame(20, seed=seed).round(dict.fromkeys("abc", 0))
    typed = frame.astype(dict.fromkeys("abc", dtype))
    made = wide.predict(typed)
    pd.testing.assert_frame_equal(made, wide.predict(frame))
    assert {str(made[name].dtype) for name in "abc"} == {"float64"}


@shared_fixtures
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_a_frame_may_be_split_into_its_series(
    long: Forecaster, data: st.DataObject, seed: int
) -> None:
    frame = long_frame((16, 14, 13), seed=seed)
    names = data.draw(st.permutations(["s0", "s1", "s2"]))
    parts = [long.predict(frame[frame["unique_id"] == name]) for name in names]
    made = pd.concat(parts).sort_values(["unique_id", "ds"], ignore_index=True)
    pd.testing.assert_frame_equal(made, long.predict(frame), rtol=1e-6, atol=1e-4)


@shared_fixtures
@given(seed=st.integers(0, 2**20), data=st.data())
def test_a_wide_and_a_long_frame_of_the_same_numbers_have_the_same_forecast(
    wide: Forecaster, seed: int, data: st.DataObject
) -> None:
    frame = wide_frame(20, seed=seed)
    long = melted(frame)
    interleaved = long.iloc[data.draw(st.permutations(range(len(long))))]
    made = wide.predict(interleaved, sort=True).pivot(index="ds", columns="unique_id", values="y")
    expected = wide.predict(frame).set_index("date")
    np.testing.assert_array_equal(made[["a", "b", "c"]], expected[["a", "b", "c"]])
    assert made.index.tolist() == expected.index.tolist()


def test_a_long_training_takes_a_wide_frame_of_its_series(long: Forecaster) -> None:
    frame = long_frame((60, 60, 60))
    wide = frame.pivot(index="ds", columns="unique_id", values="y")
    made = long.predict(wide)
    assert isinstance(made.index, pd.DatetimeIndex)
    assert made.columns.tolist() == ["s0", "s1", "s2"]
    expected = long.predict(frame).pivot(index="ds", columns="unique_id", values="y")
    np.testing.assert_allclose(made, expected, rtol=1e-12)


def test_some_of_the_trained_series_are_enough(long: Forecaster) -> None:
    frame = long_frame()
    some = frame[frame["unique_id"] != "s1"]
    made = long.predict(some)
    assert made["unique_id"].unique().tolist() == ["s0", "s2"]


def test_identifiers_keep_their_type_and_columns_their_writing(train: Callable[..., Path]) -> None:
    frame = long_frame()
    frame = frame.assign(unique_id=frame["unique_id"].str[1:].astype(int))
    forecaster = Forecaster.load(train(frame))
    shouted = frame.rename(columns={"y": "Y", "ds": "DS", "unique_id": "Unique_ID"})
    made = forecaster.predict(shouted[["DS", "Y", "Unique_ID"]])
    assert made.columns.tolist() == ["DS", "Y", "Unique_ID"]
    assert made["Unique_ID"].dtype == np.int64


def test_time_may_be_the_index_and_stays_there(wide: Forecaster) -> None:
    frame = wide_frame()
    expected = wide.predict(frame)
    for name in ("date", "when", None):
        made = wide.predict(frame.set_index("date").rename_axis(name))
        assert made.index.name == name
        assert made.index.tolist() == expected["date"].tolist()
        np.testing.assert_array_equal(made, expected[["a", "b", "c"]])


def test_periods_stay_periods(wide: Forecaster) -> None:
    frame = wide_frame().set_index("date").to_period("h")
    made = wide.predict(frame)
    assert made.index.tolist() == pd.period_range(frame.index[-1], periods=5, freq="h")[1:].tolist()


def test_time_zone_is_kept_and_the_clock_may_be_set(wide: Forecaster) -> None:
    """Hourly rows over the night of 29 March 2020, in which Berlin has no 2 o'clock."""
    frame = wide_frame(30, start="2020-03-28")
    times = pd.date_range("2020-03-27 21:00", periods=30, freq="h", tz="Europe/Berlin")
    made = wide.predict(frame.assign(date=times))
    assert made["date"].tolist() == (pd.date_range(times[-1], periods=5, freq="h")[1:].tolist())
    assert str(made["date"].dt.tz) == "Europe/Berlin"
    assert (made["date"].dt.tz_localize(None).iloc[0].hour) == 4
    np.testing.assert_array_equal(made[["a", "b", "c"]], wide.predict(frame)[["a", "b", "c"]])


def test_polars_frames_come_back_as_polars_frames(wide: Forecaster, long: Forecaster) -> None:
    pl = pytest.importorskip("polars")
    for forecaster, frame in ((wide, wide_frame()), (long, long_frame())):
        given = pl.DataFrame({name: frame[name].to_numpy() for name in frame})
        expected = forecaster.predict(frame)
        for one in (given, given.lazy()):
            made = forecaster.predict(one)
            assert isinstance(made, pl.DataFrame)
            assert made.columns == expected.columns.tolist()
            for name in expected:
                assert made[name].to_list() == expected[name].tolist()


def test_a_file_is_read_as_in_training(wide: Forecaster, tmp_path: Path) -> None:
    frame = wide_frame()
    expected = wide.predict(frame)
    styles: list[dict[str, Any]] = [{}, {"sep": ";", "decimal": ","}]
    for place, style in enumerate(styles):
        file = tmp_path / f"new{place}.csv"
        frame.to_csv(file, index=False, **style)
        pd.testing.assert_frame_equal(wide.predict(file), expected)
        pd.testing.assert_frame_equal(wide.predict(str(file)), expected)
    file = tmp_path / "german.csv"
    german = frame.assign(date=frame["date"].dt.strftime("%d.%m.%Y %H:%M"))
    german.to_csv(file, index=False)
    pd.testing.assert_frame_equal(wide.predict(file), expected)
    german.iloc[-20:].to_csv(file, index=False)
    with pytest.raises(DataError, match=r"can be read day first \(2020-01-05\) or month first"):
        wide.predict(file)
    made = wide.predict(file, reading=Reading(day_first=True))
    pd.testing.assert_frame_equal(made, expected)


def refusal(forecaster: Forecaster, frame: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        forecaster.predict(frame, **options)
    return str(caught.value)


def replaced(frame: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    changed = frame.astype({column: object}) if column != "date" else frame.copy()
    changed.loc[row, column] = value
    return changed


BAD = {
    "a missing channel": (wide_frame().drop(columns="b"), ["channels missing: 'b'"]),
    "an unknown channel": (
        wide_frame(names="abcd"),
        ["not trained on: 'd'", "'a', 'b', 'c'", "--new-series"],
    ),
    "another name": (
        wide_frame().rename(columns={"a": "A"}),
        ["channels missing: 'a'", "not trained on: 'A'"],
    ),
    "a column that counts": (
        wide_frame().reset_index(names=""),
        ["column 1 has no name", "remove it if it only counts"],
    ),
    "too few rows": (wide_frame(11), ["has 11 rows", "12 are needed (the context)"]),
    "no rows": (wide_frame(0), ["no rows"]),
    "nothing but a time": (wide_frame()[["date"]], ["channels missing: 'a', 'b', 'c'"]),
    "an empty cell": (
        replaced(wide_frame(), 115, "b", None),
        ["row 115, column 'b'", "fill, interpolate or remove"],
    ),
    "NaN": (replaced(wide_frame(), 119, "c", np.nan), ["row 119, column 'c' is 'NaN'"]),
    "infinity": (replaced(wide_frame(), 118, "a", np.inf), ["row 118, column 'a' is 'inf'"]),
    "text": (replaced(wide_frame(), 117, "a", "n/a"), ["row 117, column 'a' is 'n/a'"]),
    "a number beyond the network": (
        replaced(wide_frame(), 117, "a", 1e300).astype({"a": float}),
        ["no finite forecast for 'a'", "beyond float32"],
    ),
    "a gap": (
        wide_frame().drop(index=[114, 115]),
        ["irregular step: usual is 1 h", "row 114 (2020-01-05 20:00:00) comes 3 h after"],
    ),
    "a duplicate": (
        replaced(wide_frame(), 116, "date", pd.Timestamp("2020-01-05 19:00")),
        ["duplicate timestamps at row 116"],
    ),
    "no timestamp": (
        replaced(wide_frame(), 116, "date", pd.NaT),
        ["no timestamp in row 116"],
    ),
    "out of order": (
        wide_frame().iloc[[*range(110), 111, 110, *range(112, 120)]],
        ["unsorted timestamps at row 111", "sort the rows"],
    ),
    "backwards": (wide_frame().iloc[::-1], ["run backwards"]),
    "another step": (
        wide_frame(freq="15min"),
        ["step of the last rows is 15 min, that of the training 1 h", "resample"],
    ),
    "no frame": ({"a": [1]}, ["dict is no frame; expected a pandas or polars DataFrame"]),
    "no file": ("nowhere.csv", ["nowhere.csv does not exist"]),
    "columns of the same name": (
        wide_frame().rename(columns={"b": "a"}),
        ["duplicate column names: 'a' (columns 2, 3)"],
    ),
    "a long frame without a channel": (
        melted(wide_frame()).query("unique_id != 'c'"),
        ["channels missing: 'c'"],
    ),
    "channels that end at different times": (
        melted(wide_frame()).iloc[:-1],
        ["end at different times: 'a' at 2020-01-05 23:00:00, 'c' at 2020-01-05 22:00:00"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_frame_is_refused_with_what_and_where(wide: Forecaster, case: str) -> None:
    frame, parts = BAD[case]
    message = refusal(wide, frame)
    assert [part for part in parts if part not in message] == [], message


def test_bad_series_is_named(long: Forecaster) -> None:
    frame = long_frame()
    short = pd.concat([frame, long_frame((5,)).assign(unique_id="s1")]).query(
        "unique_id != 's1' or index < 5"
    )
    assert "series 's1' has 5 rows" in refusal(long, short)
    gap = frame.drop(index=[frame.index[frame["unique_id"] == "s2"][-3]])
    assert "series 's2': irregular step" in refusal(long, gap)
    cell = frame.copy()
    cell.loc[frame.index[-1], "y"] = np.nan
    assert f"row {len(frame) - 1}, column 'y' is 'NaN'" in refusal(long, cell)
    renamed = frame.replace({"unique_id": {"s1": "t1"}})
    assert "not trained on: 't1'" in refusal(long, renamed)


def test_what_lies_before_the_context_may_be_anything_but_unreadable(long: Forecaster) -> None:
    frame = long_frame()
    holes = frame.copy()
    for name in ("s0", "s1", "s2"):
        first = frame.index[frame["unique_id"] == name]
        holes.loc[first[:20], "y"] = np.nan
    holes = holes.drop(index=[50, 51])
    pd.testing.assert_frame_equal(long.predict(holes), long.predict(frame))
