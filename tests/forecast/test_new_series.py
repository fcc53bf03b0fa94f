"""Series that a network never saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.made import long_frame, melted, wide_frame
from tests.training.tiny import CONTEXT
from tsattn.errors import ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.models import DLinear, EncoderDecoderTransformer, PatchTST


def test_new_series_is_scaled_by_its_own_history(wide: Forecaster) -> None:
    frame = wide_frame(50, names="x", seed=4)
    made = wide.predict(frame, new_series=True)
    assert made.columns.tolist() == ["date", "x"]
    values = frame["x"].to_numpy()
    mean, scale = values.mean(), values.std()
    with torch.inference_mode():
        x_TC = torch.from_numpy((values[-12:] - mean) / scale).float().unsqueeze(-1)
        y_HC = wide.network(x_TC.expand(1, 12, 3)).mean[0].double()
    np.testing.assert_allclose(made["x"], y_HC[:, 0] * scale + mean, rtol=1e-6, atol=1e-6)


def test_known_names_keep_the_scale_of_the_training(
    wide: Forecaster, forecaster: Forecaster, illness_frame: pd.DataFrame
) -> None:
    frame = wide_frame(seed=6)
    made = wide.predict(frame.assign(x=frame["a"] * 3)[["x", "date", "b", "a"]], new_series=True)
    assert made.columns.tolist() == ["x", "date", "b", "a"]
    expected = wide.predict(frame)
    np.testing.assert_allclose(made[["a", "b"]], expected[["a", "b"]], rtol=1e-6, atol=1e-6)
    part = illness_frame.iloc[-CONTEXT:, [0, 7, 2]]
    made = forecaster.predict(part, new_series=True)
    np.testing.assert_allclose(
        made.iloc[:, 1:], forecaster.predict(illness_frame)[part.columns[1:]], rtol=1e-5
    )


def test_new_series_beside_trained_ones_in_a_long_frame(long: Forecaster) -> None:
    frame = long_frame()
    new = long_frame((30,), seed=8).assign(unique_id="new")
    both = pd.concat([new, frame], ignore_index=True)
    with pytest.raises(DataError, match=r"not trained on: 'new'.*--new-series"):
        long.predict(both)
    made = long.predict(both, new_series=True)
    assert made["unique_id"].unique().tolist() == ["new", "s0", "s1", "s2"]
    pd.testing.assert_frame_equal(
        made.iloc[4:].reset_index(drop=True), long.predict(frame), rtol=1e-6
    )


def test_forecast_of_a_new_series_follows_its_unit(forecaster: Forecaster) -> None:
    """Scaled by itself, a series in another unit has the same forecast in that unit."""
    frame = wide_frame(80, names="x", freq="7D", seed=2)
    made = forecaster.predict(frame, new_series=True)
    other = forecaster.predict(frame.assign(x=frame["x"] * 1000 - 7), new_series=True)
    np.testing.assert_allclose(other["x"], made["x"] * 1000 - 7, rtol=1e-4)


def test_constant_new_series_is_forecast_as_finite_numbers(wide: Forecaster) -> None:
    frame = wide_frame(30, names="x").assign(x=7.0)
    assert np.isfinite(wide.predict(frame, new_series=True)["x"]).all()


def test_all_rows_of_a_new_series_have_to_be_numbers(wide: Forecaster) -> None:
    frame = wide_frame(50, names="x")
    frame.loc[3, "x"] = np.nan
    with pytest.raises(DataError, match="row 3, column 'x'"):
        wide.predict(frame, new_series=True)


def test_new_series_may_end_at_times_of_their_own(wide: Forecaster) -> None:
    frame = melted(wide_frame(40, names="uvw"))
    made = wide.predict(frame.iloc[:-7], new_series=True)
    ends = made.groupby("unique_id")["ds"].min()
    assert ends["w"] + pd.Timedelta(hours=7) == ends["u"] == ends["v"]


BOUND: dict[str, tuple[Callable[..., Any], str]] = {
    "a head per channel": (
        lambda data: DLinear(3, 12, 4, kernel_size=3, individual=True),
        "DLinear cannot forecast a series it never saw",
    ),
    "weights of RevIN per channel": (
        lambda data: PatchTST(3, 12, 4, d_model=8, num_heads=2, d_ff=8, revin_affine=True),
        "PatchTST without individual_head and revin_affine",
    ),
    "channels mixed": (
        lambda data: EncoderDecoderTransformer(
            3, 12, 4, d_model=8, num_heads=2, d_ff=8, calendar_features=4
        ),
        "EncoderDecoderTransformer cannot forecast a series it never saw",
    ),
}


@pytest.mark.parametrize("case", BOUND)
def test_network_bound_to_its_channels_refuses_new_series(
    train: Callable[..., Path], case: str
) -> None:
    build, message = BOUND[case]
    forecaster = Forecaster.load(train(wide_frame(), build=build))
    assert len(forecaster.predict(wide_frame())) == 4
    with pytest.raises(ConfigError, match=message):
        forecaster.predict(wide_frame(names="x"), new_series=True)
