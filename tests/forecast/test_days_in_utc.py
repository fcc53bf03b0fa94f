"""Days of UTC in a time zone, and days on the wall that are written in UTC."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.forecast.made import wide_frame
from tsattn.forecast import Forecaster
from tsattn.training.checkpoint import RECORD, read_checkpoint

ZONE = "Europe/Berlin"


def written(times: pd.DatetimeIndex) -> pd.DataFrame:
    """Return a frame whose timestamps are text in UTC, such as 2024-03-28T00:00:00Z."""
    text = times.tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    return wide_frame(len(times)).assign(date=text)


def moments(frame: pd.DataFrame) -> list[str]:
    times = pd.DatetimeIndex(frame["date"]).tz_convert("UTC")
    return times.strftime("%m-%d %H:%M").tolist()


IN_UTC = pd.date_range(end="2024-03-28", periods=300, freq="D", tz="UTC")
ON_WALL = pd.date_range(end="2024-03-28", periods=300, freq="D", tz=ZONE)
AT_SIX = IN_UTC + pd.Timedelta(hours=6)
MONTHS = pd.date_range(end="2024-03-01", periods=120, freq="MS", tz="UTC")


@pytest.mark.parametrize(
    ("times", "by_utc", "ahead"),
    [
        (IN_UTC, True, ["03-29 00:00", "03-30 00:00", "03-31 00:00", "04-01 00:00"]),
        (AT_SIX, True, ["03-29 06:00", "03-30 06:00", "03-31 06:00", "04-01 06:00"]),
        (ON_WALL, False, ["03-28 23:00", "03-29 23:00", "03-30 23:00", "03-31 22:00"]),
        (MONTHS, True, ["04-01 00:00", "05-01 00:00", "06-01 00:00", "07-01 00:00"]),
    ],
    ids=["midnights of UTC", "mornings of UTC", "midnights on the wall", "months of UTC"],
)
def test_days_go_on_by_the_clock_of_the_training_across_the_change(
    train: Callable[..., Path], times: pd.DatetimeIndex, by_utc: bool, ahead: list[str]
) -> None:
    path = train(written(times), time_zone=ZONE)
    assert read_checkpoint(path)[RECORD]["data"].get("by_utc", False) == by_utc
    forecaster = Forecaster.load(path)
    recent = times[-20:]  # all of winter
    aware = wide_frame(20).assign(date=recent.tz_convert(ZONE))
    for frame in (written(times), written(recent), aware):
        assert moments(forecaster.predict(frame)) == ahead


def test_a_file_in_utc_comes_back_in_utc(train: Callable[..., Path]) -> None:
    path = train(written(IN_UTC), time_zone=ZONE)
    made = Forecaster.load(path).predict(path.parent / "train.csv")
    assert made["date"].iloc[0].isoformat() == "2024-03-29T00:00:00+00:00"


def test_without_a_record_midnights_of_utc_stay_there(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    """A training without a change of the clock, or of an older version, tells nothing."""
    content = read_checkpoint(train(written(IN_UTC), time_zone=ZONE))
    content[RECORD]["data"].pop("by_utc", None)
    torch.save(content, tmp_path / "old.ckpt")
    forecaster = Forecaster.load(tmp_path / "old.ckpt")
    assert moments(forecaster.predict(written(IN_UTC[-20:])))[-1] == "04-01 00:00"
    assert moments(forecaster.predict(written(ON_WALL[-20:])))[-1] == "03-31 22:00"
    at_one = wide_frame(20).assign(date=IN_UTC[-20:].tz_convert(ZONE).tz_localize(None))
    assert str(forecaster.predict(at_one)["date"].iloc[-1]) == "2024-04-01 01:00:00"
