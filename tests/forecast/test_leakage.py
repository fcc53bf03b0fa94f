"""Nothing of the rows that are forecast shows in their forecast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.made import wide_frame
from tsattn.forecast import Forecaster
from tsattn.models import PatchTST
from tsattn.training import ForecastData

HORIZON = 4


def holed() -> pd.DataFrame:
    """Return channels a and b with holes in the last context, c known ahead and d up to now."""
    frame = wide_frame(names="abcd")
    frame.loc[[40, 105, 114, 115, 117], "a"] = np.nan
    frame.loc[[109, 118], "b"] = np.nan
    return frame


def with_covariates(data: ForecastData) -> PatchTST:
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    sizes |= {"known_covariates": data.known_covariates, "past_covariates": data.past_covariates}
    return PatchTST(data.channels, 12, HORIZON, patch_length=4, **sizes)


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_rows_of_the_horizon_never_change_their_forecast(
    train: Callable[..., Path], missing: str
) -> None:
    frame = holed()
    options = {"known_future": ["c"], "past": ["d"], "missing": missing}
    forecaster = Forecaster.load(train(frame, build=with_covariates, **options))
    past, future = frame.iloc[:-HORIZON], frame.iloc[-HORIZON:]
    expected = torch.from_numpy(
        forecaster.predict(past, future=future[["date", "c"]])[["a", "b"]].to_numpy().copy()
    )
    for shift, factor, hole in ((0.0, 1.0, None), (7.0, 3.0, 0), (-1e4, -5.0, 2)):
        changed = frame.copy()
        changed.loc[future.index, ["a", "b", "d"]] *= factor
        changed.loc[future.index, ["a", "b", "d"]] += shift
        if hole is not None:
            changed.loc[future.index[hole], "b"] = np.nan
        made = forecaster.backtest(changed, windows=1)
        torch.testing.assert_close(
            made.forecast_WHK["original"][0], expected, rtol=1e-12, atol=1e-12
        )
    other = frame.copy()
    other.loc[past.index[-1], "d"] += 5.0  # the last row that is seen does change it
    assert (forecaster.backtest(other, windows=1).forecast_WHK["original"][0] != expected).any()
