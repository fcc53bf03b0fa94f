"""Forecasts have identifiers and times of the source's types, so that both can be joined."""

from datetime import UTC, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.conftest import Train
from tests.forecast.made import long_frame, wide_frame
from tsattn.forecast import Forecaster
from tsattn.forecast.dtypes import as_in_pandas, as_in_polars


@pytest.fixture(scope="module")
def numbered(train: Train) -> Forecaster:
    """DLinear on daily series 0, 1 and 2."""
    return Forecaster.load(train(numbers()))


def numbers() -> pd.DataFrame:
    frame = long_frame()
    return frame.assign(unique_id=frame["unique_id"].str[1:].astype(int))


@pytest.mark.parametrize("id_type", ["int8", "Int32", "int64"])
@pytest.mark.parametrize("time_type", ["datetime64[s]", "datetime64[ns]", "period[D]"])
def test_columns_of_pandas_keep_their_types(
    numbered: Forecaster, id_type: str, time_type: str
) -> None:
    frame = numbers().astype({"unique_id": id_type, "ds": time_type})
    made = numbered.predict(frame)
    assert made.dtypes[["unique_id", "ds"]].equals(frame.dtypes[["unique_id", "ds"]])
    expected = numbered.predict(numbers())
    assert made["unique_id"].tolist() == expected["unique_id"].tolist()
    stamps = made["ds"].dt.start_time if time_type == "period[D]" else made["ds"]
    assert stamps.tolist() == expected["ds"].tolist()


@pytest.mark.parametrize("id_type", ["category", "object", "string", "str"])
def test_text_of_pandas_keeps_its_type(long: Forecaster, id_type: Any) -> None:
    frame = long_frame().astype({"unique_id": id_type})
    made = long.predict(frame)
    assert made["unique_id"].dtype == frame["unique_id"].dtype
    assert made["unique_id"].tolist() == long.predict(long_frame())["unique_id"].tolist()


def test_an_index_keeps_its_type(wide: Forecaster) -> None:
    frame = wide_frame().astype({"date": "datetime64[ns]"}).set_index("date")
    assert wide.predict(frame).index.dtype == "datetime64[ns]"
    assert wide.predict(frame.to_period("h")).index.dtype == "period[h]"


def test_dates_written_as_text_or_years_become_timestamps(wide: Forecaster, train: Train) -> None:
    frame = wide_frame().astype({"date": str})
    assert pd.api.types.is_datetime64_dtype(wide.predict(frame)["date"])
    years = wide_frame().assign(date=[*range(1800, 1920)])
    made = Forecaster.load(train(years)).predict(years)
    assert pd.DatetimeIndex(made["date"]).year.tolist() == [1920, 1921, 1922, 1923]


def test_polars_frames_can_be_joined_with_their_forecast(
    long: Forecaster, numbered: Forecaster
) -> None:
    pl = pytest.importorskip("polars")
    columns = {name: numbers()[name].to_numpy() for name in ("unique_id", "ds", "y")}
    names = [f"s{one}" for one in columns["unique_id"]]
    plain = pl.DataFrame(columns)
    enum = pl.Enum(["s0", "s1", "s2", "s3"])
    for forecaster, ids in (
        (numbered, plain["unique_id"].cast(pl.Int32)),
        (numbered, plain["unique_id"].cast(pl.UInt8)),
        (long, pl.Series(names)),
        (long, pl.Series(names, dtype=pl.Categorical)),
        (long, pl.Series(names, dtype=enum)),
    ):
        for stamp in (pl.Date, pl.Datetime("ms"), pl.Datetime("ns"), pl.Datetime("us", "UTC")):
            time = plain["ds"].cast(pl.Datetime("us"))
            zone = getattr(stamp, "time_zone", None)
            time = time.dt.replace_time_zone(zone) if zone else time.cast(stamp)
            frame = pl.DataFrame({"unique_id": ids, "ds": time, "y": plain["y"]})
            for given in (frame, frame.lazy()):
                made = forecaster.predict(given)
                assert made.schema == frame.schema
            assert len(pl.concat([frame, made])) == len(frame) + 12
            assert made.join(frame, on=["unique_id", "ds"], how="anti").shape == (12, 3)


def test_times_within_a_day_are_no_dates() -> None:
    """Rows of a column of dates cannot be hours apart, but a forecast is not to lose any."""
    pl = pytest.importorskip("polars")
    hours = pd.date_range("2024-01-01", periods=4, freq="h")
    assert as_in_polars(hours, pl.Date).to_list() == hours.tolist()
    assert as_in_pandas(hours, pd.PeriodDtype("D")).equals(hours)
    seconds = hours + pd.Timedelta("1ms")
    assert as_in_pandas(seconds, np.dtype("datetime64[s]")).equals(seconds)
    assert as_in_pandas(hours, np.dtype("datetime64[s]")).dtype == "datetime64[s]"


@pytest.mark.parametrize("dtype", ["int8", "str", "category", "datetime64[s]"])
def test_what_a_type_cannot_hold_stays_as_it_is(dtype: str) -> None:
    steps = pd.Index([126, 127, 128])
    assert as_in_pandas(steps, pd.Series(dtype=dtype).dtype).equals(steps)
    far = pd.DatetimeIndex(["2500-01-01"]).as_unit("us")
    assert as_in_pandas(far, np.dtype("datetime64[ns]")).equals(far)


def test_what_a_type_of_polars_cannot_hold_stays_as_it_is() -> None:
    pl = pytest.importorskip("polars")
    steps = pd.Index([126, 127, 128])
    for dtype in (pl.Int8, pl.String, pl.Datetime("us"), pl.Boolean, None):
        assert as_in_polars(steps, dtype).dtype == pl.Int64
    times = pd.date_range("2024-01-01", periods=2, tz="UTC")
    assert as_in_polars(times, pl.String).dtype == pl.Datetime("us", "UTC")
    ahead = times.tz_convert(timezone(timedelta(hours=1)))
    assert as_in_polars(ahead, pl.String).to_list()[0] == "2024-01-01 01:00:00+01:00"
    assert as_in_polars(times.tz_convert(UTC), pl.Datetime("ns", "UTC")).dtype.time_unit == "ns"
