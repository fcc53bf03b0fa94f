"""Windows of several series in blocks of time, and data that are not the same."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsattn.bench.compare.differences import pairing_of
from tsattn.bench.compare.errors import ErrorsOfRun, Sums
from tsattn.bench.compare.sides import Scored, require_same_windows
from tsattn.bench.opened import Opened
from tsattn.errors import DataError
from tsattn.models import LastValue
from tsattn.training.datamodule import ForecastData

CONTEXT, HORIZON = 12, 4


def data_of(folder: Path, *lengths: int, name: str = "own") -> ForecastData:
    """Series of hours that end at the same time."""
    frames = []
    for number, length in enumerate(lengths):
        times = pd.date_range(end="2024-03-01", periods=length, freq="h")
        y = np.random.default_rng(number).normal(size=length)
        frames.append(pd.DataFrame({"unique_id": f"s{number}", "ds": times, "y": y}))
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.csv"
    pd.concat(frames).to_csv(file, index=False)
    return ForecastData(str(file), context=CONTEXT, horizon=HORIZON)


def side(name: str, windows: int) -> Scored:
    nothing = {metric: np.zeros((windows, 1)) for metric in ("mse", "mae")}
    sums = Sums(nothing, np.ones((windows, 1), np.int32))
    return Scored(name, {7: ErrorsOfRun(sums, sums)})


def opened(name: str, data: ForecastData) -> Opened:
    return Opened(name, 7, LastValue(channels=1, context=CONTEXT, horizon=HORIZON), data, "32-true")


def test_windows_of_several_series_that_begin_together_are_in_one_block(tmp_path: Path) -> None:
    data = data_of(tmp_path, 400, 400, 250)
    windows = data.prepared.test
    pairing = pairing_of([side("a", len(windows)), side("b", len(windows))], data)
    assert pairing.blocks_W is not None
    assert pairing.block == 2 * HORIZON
    starts, blocks = windows.starts_W.numpy() + CONTEXT, pairing.blocks_W
    ends = pd.DatetimeIndex(["2024-03-01"] * 3) - pd.to_timedelta([399, 399, 249], "h")
    firsts = np.array([0, 400, 800])
    series = windows.series_W.numpy()
    times = ends[series] + pd.to_timedelta(starts - firsts[series], "h")
    assert set(series) == {0, 1, 2}
    found = pd.DataFrame({"time": times, "block": blocks}).sort_values("time")
    assert found.groupby("time")["block"].nunique().max() == 1
    assert found["block"].is_monotonic_increasing
    assert pairing.num_blocks == found["time"].nunique() // (2 * HORIZON)
    assert f"{len(windows)} windows, {pairing.num_blocks} blocks of 8 or more" in pairing.method


def test_two_horizons_longer_than_all_windows_are_one_block(tmp_path: Path) -> None:
    data = data_of(tmp_path, 50)
    windows = len(data.prepared.test)
    assert 1 < windows < 2 * HORIZON
    pairing = pairing_of([side("a", windows), side("b", windows)], data)
    assert (pairing.num_blocks, pairing.too_few) == (1, True)
    assert f"{windows} windows, 1 block of {windows} or more, too few" in pairing.method


def test_files_of_one_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    a, b = data_of(tmp_path / "a", 200), data_of(tmp_path / "b", 220)
    with pytest.raises(DataError, match=r"data .*own\.csv .sha256 .* and .*own\.csv .*--root"):
        require_same_windows(opened("first", a), opened("other", b))
    c = data_of(tmp_path / "c", 200, name="others")
    with pytest.raises(DataError, match=r"same windows: (?!.*--root)"):
        require_same_windows(opened("first", b), opened("other", c))
