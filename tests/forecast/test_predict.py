"""What a forecast is: the network's own, in original units, at the right times."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.made import long_frame, wide_frame
from tests.training.tiny import CONTEXT, HORIZON, TEST_WINDOWS, Finished
from tsattn.data import calendar_marks
from tsattn.forecast import Forecaster
from tsattn.models import EncoderDecoderTransformer, SeasonalNaive
from tsattn.training.checkpoint import RECORD, read_checkpoint


@pytest.fixture(scope="session")
def stored(illness: Finished) -> dict[str, np.ndarray]:
    with np.load(illness.predictions) as file:
        return dict(file)


@pytest.mark.parametrize("window", [0, 57, TEST_WINDOWS - 1])
def test_forecast_is_that_of_the_trainer_on_the_same_rows(
    forecaster: Forecaster,
    illness_frame: pd.DataFrame,
    stored: dict[str, np.ndarray],
    window: int,
) -> None:
    end = len(illness_frame) - HORIZON - (TEST_WINDOWS - 1 - window)
    made = forecaster.predict(illness_frame.iloc[:end])
    assert made.columns.tolist() == illness_frame.columns.tolist()
    expected = stored["prediction_original"][window]
    scale = forecaster.trained.scaler.scale_SC.numpy()
    np.testing.assert_allclose(made.iloc[:, 1:] / scale, expected / scale, rtol=1e-6, atol=1e-6)
    times = illness_frame["date"].iloc[end : end + HORIZON]
    assert made["date"].tolist() == times.tolist()


def test_only_the_last_context_rows_matter(
    forecaster: Forecaster, illness_frame: pd.DataFrame
) -> None:
    spoilt = illness_frame.copy()
    spoilt.iloc[:-CONTEXT, 1:] = np.nan
    spoilt.loc[3, "date"] = illness_frame["date"].iloc[7]
    whole = forecaster.predict(illness_frame)
    for frame in (illness_frame.iloc[-CONTEXT:], spoilt):
        pd.testing.assert_frame_equal(forecaster.predict(frame), whole)


def test_forecast_equals_an_independent_computation_in_float64(wide: Forecaster) -> None:
    frame = wide_frame(seed=5)
    values = frame[["a", "b", "c"]].to_numpy()
    mean, scale = (part[0].numpy() for part in (
        wide.trained.scaler.mean_SC, wide.trained.scaler.scale_SC))  # fmt: skip
    train = wide_frame()[["a", "b", "c"]].to_numpy()[: int(0.7 * 120)]
    np.testing.assert_allclose(mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, train.std(axis=0), rtol=1e-12)
    network = wide.network.double()
    try:
        with torch.no_grad():
            x_TC = torch.from_numpy((values[-12:] - mean) / scale)
            y_HC = network(x_TC.unsqueeze(0)).mean[0].numpy() * scale + mean
    finally:
        network.float()
    made_HC = wide.predict(frame)[["a", "b", "c"]]
    np.testing.assert_allclose(made_HC / scale, y_HC / scale, rtol=1e-5, atol=1e-5)  # near zero too


def test_networks_that_use_the_calendar_get_that_of_context_and_horizon(
    train: Callable[..., Path],
) -> None:
    file = train(
        wide_frame(),
        calendar=["hour_of_day", "day_of_week"],
        build=lambda data: EncoderDecoderTransformer(
            3, 12, 4, calendar_features=2, d_model=8, num_heads=2, d_ff=8,
            encoder_layers=1, decoder_layers=1,
        ),
    )  # fmt: skip
    forecaster = Forecaster.load(file)
    frame = wide_frame(seed=9, start="2021-06-05 17:00")
    scaler, network = forecaster.trained.scaler, forecaster.network
    times = pd.date_range(frame["date"].iloc[-12], periods=16, freq="h")
    marks = calendar_marks(times, ("hour_of_day", "day_of_week")).unsqueeze(0)
    x_TC = scaler.standardise(frame.iloc[-12:, 1:].to_numpy())
    with torch.inference_mode():
        y_BHC = network(x_TC.unsqueeze(0), marks[:, :12], marks[:, 12:]).mean
        other = network(x_TC.unsqueeze(0), marks[:, :12], -marks[:, 12:]).mean
    expected = scaler.to_original(y_BHC, torch.zeros(1, dtype=torch.int64))[0]
    np.testing.assert_allclose(forecaster.predict(frame).iloc[:, 1:], expected, rtol=1e-6)
    assert not torch.allclose(y_BHC, other)  # so the calendar does matter


@pytest.mark.parametrize(
    ("freq", "start", "after"),
    [
        ("10min", "2020-01-01", ["2020-01-01 20:00", "2020-01-01 20:10"]),
        ("h", "2020-02-24", ["2020-02-29 00:00", "2020-02-29 01:00"]),
        ("D", "2020-01-01", ["2020-04-30", "2020-05-01"]),
        ("B", "2020-01-01", ["2020-06-17", "2020-06-18"]),
        ("7D", "2020-01-01", ["2022-04-20", "2022-04-27"]),
        ("MS", "2010-01-01", ["2020-01-01", "2020-02-01"]),
        ("ME", "2010-01-31", ["2020-01-31", "2020-02-29"]),
        ("QS", "1990-01-01", ["2020-01-01", "2020-04-01"]),
    ],
)
def test_timestamps_go_on_at_the_step_of_the_training(
    train: Callable[..., Path], freq: str, start: str, after: list[str]
) -> None:
    frame = wide_frame(freq=freq, start=start, names="ab")
    forecaster = Forecaster.load(train(frame, context=8, horizon=3))
    made = forecaster.predict(frame)
    assert made["date"].iloc[:2].tolist() == [pd.Timestamp(time) for time in after]
    assert made["date"].tolist() == (
        pd.date_range(frame["date"].iloc[-1], periods=4, freq=freq)[1:].tolist()
    )


def test_each_series_is_forecast_from_its_own_end_with_its_own_scale(long: Forecaster) -> None:
    frame = long_frame()
    made = long.predict(frame)
    assert made["unique_id"].tolist() == [f"s{i}" for i in range(3) for _ in range(4)]
    for name, rows in frame.groupby("unique_id"):
        alone = made[made["unique_id"] == name]
        last = rows["ds"].iloc[-1]
        assert alone["ds"].tolist() == [last + pd.Timedelta(days=i) for i in range(1, 5)]
        place = long.trained.names.index(str(name))
        x_TC = rows[["y"]].to_numpy()[-12:] - long.trained.scaler.mean_SC[0, place].item()
        x_TC = torch.from_numpy(x_TC / long.trained.scaler.scale_SC[0, place].item()).float()
        with torch.inference_mode():
            y_HC = long.network(x_TC.unsqueeze(0)).mean[0].double()
        y_HC = y_HC * long.trained.scaler.scale_SC[0, place] + long.trained.scaler.mean_SC[0, place]
        np.testing.assert_allclose(alone["y"], y_HC[:, 0], rtol=1e-6, atol=1e-6)


def test_a_floor_repeats_the_frames_own_numbers(train: Callable[..., Path]) -> None:
    """In original units: what comes out is exactly what went in a season ago."""
    frame = wide_frame()
    file = train(frame, build=lambda data: DLinearWithSeason(data.channels, 12, 4))
    content = read_checkpoint(file)
    content[RECORD]["network"] = {
        "class": "SeasonalNaive",
        "arguments": {"channels": 3, "context": 12, "horizon": 4, "season": 6},
        "not_stored": [],
    }
    content["state_dict"] = {}
    torch.save(content, file)
    made = Forecaster.load(file).predict(frame)
    expected = frame.iloc[-6:-2, 1:].to_numpy()
    np.testing.assert_allclose(made.iloc[:, 1:], expected, rtol=1e-5, atol=1e-4)


class DLinearWithSeason(SeasonalNaive):
    """A floor with a parameter, so that a trainer takes it."""

    def __init__(self, channels: int, context: int, horizon: int) -> None:
        super().__init__(channels, context, horizon, season=6)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *inputs: torch.Tensor | None):
        forecast = super().forward(*inputs)  # pyright: ignore
        return type(forecast)(forecast.mean + 0 * self.unused)


def test_loading_and_predicting_bring_in_neither_lightning_nor_the_compiler(
    illness: Finished, root: Path
) -> None:
    program = f"""
import sys
import pandas as pd
from tsattn import Forecaster
made = Forecaster.load({str(illness.folder.path)!r}).predict({str(root / "datasets" / "national_illness.csv")!r})
heavy = ("lightning", "torch._dynamo", "torchmetrics", "sklearn", "jsonargparse", "matplotlib")
print(len(made), [name for name in heavy if name in sys.modules])
"""  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.stdout == f"{HORIZON} []\n", done.stderr
