"""Series come back under the names that their source has for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.forecast.made import long_frame
from tsattn.errors import DataError
from tsattn.forecast import Forecaster


def test_series_of_a_file_keep_names_that_are_numbers_written_in_another_way(
    train: Callable[..., Path],
) -> None:
    names = {"s0": "001", "s1": "1", "s2": "1.10"}
    frame = long_frame().replace({"unique_id": names})
    path = train(frame)
    forecaster = Forecaster.load(path)
    made = forecaster.predict(path.parent / "train.csv")
    assert made["unique_id"].tolist() == [one for one in names.values() for _ in range(4)]
    expected = forecaster.predict(frame)
    np.testing.assert_array_equal(made["y"], expected["y"])
    assert expected["unique_id"].tolist() == made["unique_id"].tolist()


def test_series_without_a_name_are_refused(long: Forecaster) -> None:
    frame = long_frame()
    frame.loc[frame["unique_id"] == "s1", "unique_id"] = None
    for new_series in (False, True):
        with pytest.raises(DataError, match="the frame: unique_id is empty in rows 120, 121, "):
            long.predict(frame, new_series=new_series)
