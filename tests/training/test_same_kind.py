"""Which other data a run may be refitted on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.test_conformal import small
from tsattn.errors import ConfigError
from tsattn.training.command import run
from tsattn.training.refit import refit
from tsattn.training.same_kind import notes_on_series, require_same_kind

HOUR = "P0DT1H0M0S"


def data(**other: Any) -> dict[str, Any]:
    """What a record says of data."""
    return {
        "name": "own",
        "layout": "wide",
        "step": HOUR,
        "step_seconds": 3600.0,
        "channels": ["a", "b"],
        "series": ["own"],
        "integers": False,
    } | other


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"layout": "long"}, "a long file instead of a wide one"),
        ({"step": "P1DT0H0M0S"}, "its rows are 1 d apart and not 1 h"),
        ({"integers": True, "step_seconds": 5.0}, "its rows are 5 of a count apart and not 1 h"),
        ({"channels": ["a", "b", "c"]}, "it has 'c' too"),
        ({"channels": ["b"]}, "it lacks 'a'"),
        ({"covariates": {"known": ["a"]}}, "it has other covariates"),
    ],
)
def test_what_was_not_validated_is_refused(other: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_same_kind(data(), data(**other))


def test_channels_may_stand_in_another_order() -> None:
    require_same_kind(data(), data(channels=["b", "a"], name="newer"))


def test_series_of_a_long_file_may_come_and_go_but_not_all() -> None:
    then = data(layout="long", channels=["y"], series=["s0", "s1"])
    now = then | {"series": ["s1", "s2", "s3"]}
    require_same_kind(then, now)
    assert notes_on_series(then, now) == [
        "2 series not validated, so without intervals: 's2', 's3'",
        "1 series of the validated run not in this file: 's0'",
    ]
    assert not notes_on_series(then, then)
    with pytest.raises(ConfigError, match="it has no series of that run, such as 's0'"):
        require_same_kind(then, then | {"series": ["s2"]})


def test_a_refit_on_other_data_writes_nothing(
    write_wide: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_wide(tmp_path / "own.csv", rows=200)
    run(small(file, tmp_path / "run", "--trainer.max_epochs", 1))
    frame = pd.read_csv(file)
    days = frame.assign(**{frame.columns[0]: pd.date_range("2020-01-01", periods=200, freq="D")})
    days.to_csv(tmp_path / "days.csv", index=False)
    frame.rename(columns={frame.columns[1]: "new"}).to_csv(tmp_path / "new.csv", index=False)
    for name, said in (("days", "rows are 1 d apart"), ("new", "it has 'new' too; it lacks")):
        with pytest.raises(ConfigError, match=said):
            refit(tmp_path / "run", data=tmp_path / f"{name}.csv")
    assert not (tmp_path / "run-refit").exists()
    turned = frame[[frame.columns[0], *frame.columns[:0:-1]]]
    turned.to_csv(tmp_path / "turned.csv", index=False)
    result = refit(tmp_path / "run", data=tmp_path / "turned.csv")
    assert np.isfinite(result["validated"]["floors"]["last_value"]["mse"])
    assert result["validated"]["dataset"]["name"] == "own"
    assert result["dataset"]["name"] == "turned"
