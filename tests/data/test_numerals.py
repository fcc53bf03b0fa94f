"""Numbers of frames and of files beside decimal commas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Reading, load_panel


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
