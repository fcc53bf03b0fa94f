"""Targets: columns that are forecast, where a file holds others that nobody wants to forecast."""

import numpy as np
import pandas as pd
import pytest

from tests.data.conftest import WriteCsv
from tsattn.data import Panel, Reading, load_panel
from tsattn.data.describe import describe_dataset
from tsattn.errors import ConfigError, DataError
from tsattn.training import ForecastData

ROWS = 40
TIMES = pd.date_range("2024-01-01", periods=ROWS, freq="h")


@pytest.fixture
def messy() -> pd.DataFrame:
    """A counter without a name, two times, two numbers and text."""
    return pd.DataFrame(
        {
            "": range(ROWS),
            "date": TIMES,
            "load": np.arange(ROWS) + 0.5,
            "heat": np.arange(ROWS) * 2.0,
            "remark": ["fine"] * ROWS,
            "written": TIMES,
        }
    )


def read(frame: pd.DataFrame, *targets: str, covariates: tuple[str, ...] = ()) -> Panel:
    reading = Reading(time_column="date", targets=targets, covariates=covariates)
    return load_panel(frame, reading=reading)


def test_what_is_not_named_is_not_read(messy: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no name"):
        read(messy)
    panel = read(messy, "load")
    assert panel.channels == ("load",)
    assert panel.series[0].values_RC.tolist() == messy[["load"]].to_numpy().tolist()
    assert (panel.series[0].times == TIMES).all()
    assert "columns not used: one without a name, 'heat', 'remark', 'written'" in panel.notes


def test_missing_values_elsewhere_do_not_matter(messy: pd.DataFrame) -> None:
    messy.loc[3, "heat"] = None
    assert read(messy, "load").treated.missing == 0
    with pytest.raises(DataError, match="row 3, column 'heat' is 'NaN'"):
        read(messy, "load", "heat")


def test_channels_keep_the_order_of_the_file(messy: pd.DataFrame) -> None:
    assert read(messy, "heat", "load").channels == ("load", "heat")


def test_covariates_are_read_beside_the_targets(messy: pd.DataFrame) -> None:
    panel = read(messy, "load", covariates=("heat", "hour_of_day"))
    assert panel.channels == ("load", "heat")


def test_nothing_changes_where_all_are_named(messy: pd.DataFrame) -> None:
    numbers = messy[["date", "load", "heat"]]
    everything, chosen = read(numbers), read(numbers, "load", "heat")
    assert chosen.notes == everything.notes
    assert chosen.sha256 == everything.sha256
    assert np.array_equal(chosen.series[0].values_RC, everything.series[0].values_RC)


def test_a_file_is_read_as_a_frame_is(messy: pd.DataFrame, write_csv: WriteCsv) -> None:
    path = write_csv(messy.to_csv(index=False))
    panel = load_panel(path, reading=Reading(time_column="date", targets=("load",)))
    assert panel.channels == ("load",)
    assert panel.series[0].values_RC[:, 0].tolist() == messy["load"].tolist()


def test_a_published_dataset_is_cut_to_its_target_and_keeps_its_borders() -> None:
    whole, target = load_panel("ETTh1"), load_panel("ETTh1", reading=Reading(targets=("OT",)))
    assert target.channels == ("OT",)
    assert np.array_equal(target.series[0].values_RC, whole.series[0].values_RC[:, -1:])
    assert target.info is whole.info is not None


@pytest.mark.parametrize(
    ("targets", "covariates", "words"),
    [
        (
            ("loadd",),
            (),
            ["no column 'loadd' to forecast", "did you mean 'load'?", "'heat', 'remark'"],
        ),
        (("load",), ("haet",), ["no column 'haet' for a covariate", "did you mean 'heat'?"]),
        (("LOAD",), (), ["no column 'LOAD' to forecast (did you mean 'load'?)"]),
        (("date",), (), ["no column 'date' to forecast (it is the time, or a covariate)"]),
        (("load", "heat"), ("heat",), ["'heat' cannot be target and covariate"]),
        (("remark",), (), ["column 'remark' has no number at all"]),
    ],
)
def test_names_that_cannot_be_are_refused(
    messy: pd.DataFrame, targets: tuple[str, ...], covariates: tuple[str, ...], words: list[str]
) -> None:
    with pytest.raises(DataError) as raised:
        read(messy, *targets, covariates=covariates)
    assert all(word in str(raised.value) for word in words), raised.value


def test_the_long_layout_forecasts_y(messy: pd.DataFrame) -> None:
    long = pd.DataFrame({"unique_id": "a", "ds": TIMES, "y": messy["load"], "z": messy["heat"]})
    assert load_panel(long, reading=Reading(targets=("y",))).channels == ("y",)
    with pytest.raises(DataError, match="the long layout forecasts y, so 'z' cannot be a target"):
        load_panel(long, reading=Reading(targets=("z",)))


@pytest.mark.unchecked
def test_a_text_in_the_place_of_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"targets are several names, got 'load'"):
        Reading(targets="load")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"past are several names, got 'heat'"):
        ForecastData("own.csv", past="heat")  # pyright: ignore[reportArgumentType]


def test_a_description_is_that_of_the_targets_even_of_a_file_that_cannot_be_used(
    messy: pd.DataFrame, write_csv: WriteCsv
) -> None:
    messy["load"] = messy["load"].astype(object)
    messy.loc[3, "load"] = "broken"
    path = write_csv(messy.to_csv(index=False))
    described = describe_dataset(path, reading=Reading(time_column="date", targets=("load",)))
    assert described.problem is not None
    assert [one.name for one in described.channels] == ["load"]


def test_messages_about_columns_in_the_way_name_the_option(messy: pd.DataFrame) -> None:
    for columns in (["date", "load", "remark"], ["date", "load", "written"], ["", "date", "load"]):
        with pytest.raises(DataError, match=r"what is to be forecast with --data\.targets"):
            load_panel(messy[columns])
