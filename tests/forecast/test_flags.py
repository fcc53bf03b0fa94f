"""Covariates that are True or False, also in columns that have empty cells besides."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.conftest import Train
from tests.training.signals import patchtst
from tsattn.data import Reading, load_panel
from tsattn.errors import DataError
from tsattn.forecast import Forecaster

NAMES: dict[str, Any] = {"known_future": ["price"], "past": ["promo"]}


def shop(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    numbers = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "date": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "sold": numbers.normal(20, 1, rows).round(3),
            "price": numbers.choice([1.0, 2.0], rows),
            "promo": numbers.random(rows) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def forecaster(train: Train) -> Forecaster:
    return Forecaster.load(train(shop(), build=patchtst, **NAMES))


def whole() -> pd.DataFrame:
    """Return a frame whose last rows say what is known ahead, and nothing else."""
    frame = shop(seed=1)
    known = frame.index < len(frame) - 4
    return frame.assign(sold=frame["sold"].where(known), promo=frame["promo"].where(known))


def test_flags_may_be_empty_in_the_rows_ahead(forecaster: Forecaster, tmp_path: Path) -> None:
    frame = shop(seed=1)
    expected = forecaster.predict(frame[:-4], future=frame[-4:])
    other = frame[:-4].assign(promo=~frame["promo"][:-4])
    assert not forecaster.predict(other, future=frame[-4:]).equals(expected)
    given = whole()
    assert given["promo"].dtype == object
    given.to_csv(tmp_path / "plain.csv", index=False)
    given.to_csv(tmp_path / "quoted.csv", index=False, quoting=2)
    nullable = given.assign(promo=given["promo"].astype("boolean"))
    for one in (given, nullable, tmp_path / "plain.csv", tmp_path / "quoted.csv"):
        pd.testing.assert_frame_equal(forecaster.predict(one), expected, check_dtype=False)


def test_flags_with_empty_rows_stand_beside_decimal_commas(
    forecaster: Forecaster, tmp_path: Path
) -> None:
    frame = shop(seed=1)
    expected = forecaster.predict(frame[:-4], future=frame[-4:])
    given = whole().assign(price=frame["price"].map(lambda price: f"{price:.1f}".replace(".", ",")))
    given.to_csv(tmp_path / "comma.csv", index=False, sep=";", decimal=",")
    found = forecaster.predict(tmp_path / "comma.csv")
    np.testing.assert_allclose(found["sold"], expected["sold"], rtol=1e-5)


def test_flags_of_polars_may_be_empty_in_the_rows_ahead(forecaster: Forecaster) -> None:
    pl = pytest.importorskip("polars")
    frame, given = shop(seed=1), whole()
    cells = [None if one is None or one != one else bool(one) for one in given["promo"]]
    columns = {name: given[name].to_numpy() for name in ("date", "sold", "price")}
    made = forecaster.predict(pl.DataFrame({**columns, "promo": pl.Series(cells)}))
    expected = forecaster.predict(frame[:-4], future=frame[-4:])
    assert made["sold"].to_list() == expected["sold"].tolist()


def test_a_backtest_reads_flags_with_empty_rows_behind_them(forecaster: Forecaster) -> None:
    scored, expected = (forecaster.backtest(one, windows=2) for one in (whole(), shop(seed=1)[:-4]))
    pd.testing.assert_frame_equal(scored.scores("total"), expected.scores("total"))


@pytest.mark.parametrize("cells", [["True", "false"], ["TRUE", "FALSE"], [True, False]])
def test_words_and_objects_are_flags_in_training_too(cells: list[object]) -> None:
    frame = shop(40).drop(columns="price").assign(promo=pd.Series(cells * 20, dtype=object))
    panel = load_panel(frame, reading=Reading(covariates=("promo",)))
    assert panel.series[0].values_RC[:4, 1].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("cell", "shown"), [(None, "empty"), ("maybe", "'maybe'"), ("", "empty")])
def test_what_is_no_flag_is_refused_with_its_row(cell: Any, shown: str) -> None:
    frame = shop(40).drop(columns="price").astype({"promo": object})
    frame.loc[[7], "promo"] = cell
    with pytest.raises(DataError, match=r"numbers \(or True and False\), but .*row") as caught:
        load_panel(frame, reading=Reading(covariates=("promo",)))
    if cell != "maybe":  # else none of the column's words is taken for a number
        assert f"but row 7, column 'promo' is {shown};" in str(caught.value)
