"""Forecasts and scores of frames with missing values, gaps, duplicates, zones and counted steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forecast.made import long_frame, melted, wide_frame
from tsattn.data import Reading
from tsattn.data.treatment import Treatment
from tsattn.errors import CheckpointError, ConfigError, DataError
from tsattn.forecast import Forecaster
from tsattn.models import PatchTST
from tsattn.training.checkpoint import RECORD, read_checkpoint

ZONE = "Europe/Berlin"
MASK, FILL = Reading(missing="mask"), Reading(missing="interpolate")

shared_fixtures = settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def patchtst(data: Any) -> PatchTST:
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    return PatchTST(data.channels, 12, 4, patch_length=4, **sizes)


def holed(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    frame = wide_frame(rows, seed=seed)
    frame.loc[[5, 40, 41, rows - 3], "a"] = np.nan
    frame.loc[rows - 1, "b"] = np.nan
    return frame


@pytest.fixture(scope="session")
def masked(train: Callable[..., Path]) -> Path:
    """PatchTST trained with a mask on a frame with holes, a gap and a duplicate; its checkpoint."""
    frame = holed().drop(index=[60, 61])
    frame = pd.concat([frame, frame.iloc[[70]]]).sort_index()
    return train(frame, build=patchtst, missing="mask", gaps="regularise", duplicates="mean")


@pytest.fixture(scope="session")
def masking(masked: Path) -> Forecaster:
    """That checkpoint's forecaster."""
    return Forecaster.load(masked)


def test_checkpoint_says_what_was_done(masked: Path, masking: Forecaster) -> None:
    assert masking.trained.treatment == Treatment("mask", "mean", "regularise")
    done = read_checkpoint(masked)[RECORD]["data"]["treatment"]["done"]
    assert done == {"missing": 5 + 6, "values": 360, "merged": 1, "inserted": 2}


def test_forecast_treats_a_frame_as_the_training_did(masking: Forecaster) -> None:
    frame = holed().drop(index=[113, 114])
    made = masking.outlook(frame)
    assert made.history.notes[-2:] == (
        "gaps: 2 row(s) inserted",
        "missing values: 8 of 36 (22%) masked",
    )
    whole = holed()
    whole.loc[[113, 114], ["a", "b", "c"]] = np.nan
    pd.testing.assert_frame_equal(made.frame(), masking.predict(whole))
    assert made.frame().iloc[:, 1:].notna().all(axis=None)


def test_forecast_may_be_told_otherwise(masking: Forecaster, wide: Forecaster) -> None:
    frame = holed()
    strict = Reading(missing="error", gaps="error", duplicates="error")
    with pytest.raises(DataError, match="row 117, column 'a' is 'NaN'"):
        masking.predict(frame, reading=strict)
    with pytest.raises(ConfigError, match="gaps regularise inserts rows without values"):
        masking.predict(frame, reading=Reading(missing="error"))
    with pytest.raises(DataError, match=r"--data\.missing interpolate"):
        wide.predict(frame)
    filled = frame.copy()
    filled.iloc[-12:] = filled.iloc[-12:].interpolate(limit_direction="both")
    made = wide.predict(frame, reading=FILL)
    np.testing.assert_allclose(made.iloc[:, 1:], wide.predict(filled).iloc[:, 1:], rtol=1e-6)


def test_mask_reaches_the_network(masking: Forecaster) -> None:
    frame = holed(seed=3)
    seen_TC = frame[["a", "b", "c"]].iloc[-12:].notna().to_numpy()
    scaler = masking.trained.scaler
    x_TC = scaler.standardise(frame[["a", "b", "c"]].iloc[-12:].to_numpy()).nan_to_num(7.0)
    with torch.inference_mode():
        observed = torch.from_numpy(seen_TC).unsqueeze(0)
        y_HC = masking.network(x_TC.unsqueeze(0), observed_BTC=observed).mean[0].double()
    expected = y_HC * scaler.scale_SC[0] + scaler.mean_SC[0]
    np.testing.assert_allclose(masking.predict(frame)[["a", "b", "c"]], expected, rtol=1e-5)


def test_channel_without_any_value_is_masked_but_not_interpolated(masking: Forecaster) -> None:
    frame = wide_frame().assign(b=np.nan)
    assert masking.predict(frame).iloc[:, 1:].notna().all(axis=None)
    with pytest.raises(DataError, match="no value of 'b' among the last rows"):
        masking.predict(frame, reading=FILL)


@pytest.mark.parametrize("reading", [MASK, FILL])
def test_backtest_is_the_forecast_of_each_window_and_scores_what_was_observed(
    wide: Forecaster, masking: Forecaster, reading: Reading
) -> None:
    frame = holed()
    for forecaster in (wide, masking):
        made = forecaster.backtest(frame, windows=4, step=3, reading=reading)
        for window in range(4):
            end = len(frame) - 4 - 3 * (3 - window)
            expected = forecaster.predict(frame.iloc[:end], reading=reading)
            forecast_HK = made.forecast_WHK["original"][window]
            np.testing.assert_allclose(forecast_HK, expected.iloc[:, 1:], rtol=1e-5)
            truth = frame.iloc[end : end + 4, 1:].to_numpy()
            np.testing.assert_array_equal(made.truth_WHK["original"][window], truth)
        scores = made.scores()
        lacking = scores[scores["mse"].isna()]
        assert set(lacking["channel"]) == {"a", "b"}
        total = made.scores("channel").query("unit == 'original'").set_index("channel")
        error = (made.forecast_WHK["original"] - made.truth_WHK["original"]).abs().numpy()
        np.testing.assert_allclose(total["mae"], np.nanmean(error, axis=(0, 1)), rtol=1e-9)
        share = np.nansum(error, axis=(0, 1)) / np.nansum(
            np.abs(made.truth_WHK["original"].numpy()), axis=(0, 1)
        )
        np.testing.assert_allclose(total["wape"], share, rtol=1e-9)


@pytest.mark.parametrize("method", ["conformal", "adaptive"])
def test_intervals_are_scored_where_the_truth_was_observed(
    forecaster: Forecaster, illness_frame: pd.DataFrame, method: Any
) -> None:
    frame = illness_frame.copy()
    frame.iloc[-9:-3, 2] = np.nan
    made = forecaster.backtest(frame, windows=8, step=2, levels=[80], method=method, reading=FILL)
    scores = made.scores()
    lacking = scores["mse"].isna()
    assert lacking.sum() == 2 * int(made.truth_WHK["original"].isnan().sum()) > 0
    assert (scores["coverage-80"].isna() == lacking).all()
    assert np.isfinite(scores["width-80"]).all()
    assert made.scores("total")["coverage-80"].between(0, 1).all()


def test_duplicates_and_gaps_of_one_series_leave_the_others_alone(long: Forecaster) -> None:
    frame = long_frame()
    last = frame.index[frame["unique_id"] == "s1"][-6]
    spoilt = pd.concat([frame.drop(index=[last]), frame.iloc[[5]]]).sort_index()
    reading = Reading(missing="mask", gaps="regularise", duplicates="first")
    made, expected = long.predict(spoilt, reading=reading), long.predict(frame)
    others = made["unique_id"] != "s1"
    pd.testing.assert_frame_equal(made[others], expected[others])
    assert made["ds"].tolist() == expected["ds"].tolist()
    assert not np.allclose(made[~others]["y"], expected[~others]["y"])


def test_rows_that_are_too_few_count_those_to_insert(wide: Forecaster) -> None:
    reading = Reading(missing="mask", gaps="regularise")
    frame = wide_frame(20).drop(index=[12, 13])
    assert len(wide.predict(frame, reading=reading)) == 4
    with pytest.raises(DataError, match=r"has 11 rows, but 12 are needed"):
        wide.predict(wide_frame(11).drop(index=[5]), reading=reading)
    off = wide_frame(30)
    off.loc[25, "date"] = pd.Timestamp("2020-01-02 01:05")
    with pytest.raises(DataError, match=r"row 25 \(2020-01-02 01:05:00\)"):
        wide.predict(off, reading=reading)


@shared_fixtures
@given(
    holes=st.lists(st.tuples(st.integers(108, 119), st.sampled_from("abc")), max_size=12),
    order=st.permutations(["date", "a", "b", "c"]),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from(["float64", "Float64", "object"]),
    zone=st.sampled_from([None, "UTC", "America/New_York"]),
)
def test_columns_rows_dtypes_zones_and_layout_never_change_a_masked_forecast(
    masking: Forecaster,
    holes: list[tuple[int, str]],
    order: list[str],
    seed: int,
    dtype: str,
    zone: str | None,
) -> None:
    frame = wide_frame(seed=seed)
    for row, name in holes:
        frame.loc[row, name] = np.nan
    expected = masking.predict(frame)
    times = frame["date"] if zone is None else frame["date"].dt.tz_localize(zone)
    changed = frame.assign(date=times).astype(dict.fromkeys("abc", dtype))[order]
    mixed = changed.sample(frac=1, random_state=seed % 2**32)
    made = masking.predict(mixed, sort=True)
    assert made.columns.tolist() == order
    np.testing.assert_array_equal(made[["a", "b", "c"]], expected[["a", "b", "c"]])
    assert made["date"].dt.tz_localize(None).tolist() == expected["date"].tolist()
    split = masking.predict(melted(frame)).pivot(index="ds", columns="unique_id", values="y")
    np.testing.assert_array_equal(split[["a", "b", "c"]], expected[["a", "b", "c"]])


def test_days_in_a_zone_stay_at_midnight_when_the_clock_is_set(
    train: Callable[..., Path],
) -> None:
    daily = Forecaster.load(train(wide_frame(freq="D")))
    times = pd.date_range(end="2020-03-27", periods=30, freq="D", tz=ZONE)
    frame = wide_frame(30, freq="D").assign(date=times)
    made = daily.predict(frame)
    assert made["date"].tolist() == pd.date_range("2020-03-28", periods=4, tz=ZONE).tolist()


def local_frame(rows: int = 120) -> pd.DataFrame:
    """Return hours of Berlin without a zone, the last 20 after the night of 29 March 2020."""
    times = pd.date_range(end="2020-03-29 21:00", periods=rows, freq="h", tz=ZONE)
    return wide_frame(rows).assign(date=times.tz_localize(None))


def test_local_times_are_taken_for_those_of_the_training_and_come_back_as_they_were(
    train: Callable[..., Path],
) -> None:
    local = local_frame()
    forecaster = Forecaster.load(train(local, time_zone=ZONE))
    frame = local.iloc[:-10]  # the context spans the night
    made = forecaster.predict(frame)
    assert made["date"].tolist() == local["date"].iloc[-10:-6].tolist()
    aware = frame.assign(date=frame["date"].dt.tz_localize(ZONE))
    for zone in (ZONE, "UTC"):
        again = forecaster.predict(aware.assign(date=aware["date"].dt.tz_convert(zone)))
        assert str(again["date"].dt.tz) == zone
        assert again["date"].dt.tz_convert(ZONE).dt.tz_localize(None).tolist() == (
            made["date"].tolist()
        )
        np.testing.assert_array_equal(again[["a", "b", "c"]], made[["a", "b", "c"]])
    cutoffs = pd.DatetimeIndex(forecaster.backtest(local).cutoffs_WK[0])
    assert (cutoffs == local["date"].iloc[-5]).all()


def test_messages_about_local_times_name_the_option(wide: Forecaster) -> None:
    with pytest.raises(DataError, match="An hour is skipped in the night of 2020-03-29"):
        wide.predict(local_frame().iloc[:-10])
    made = wide.predict(local_frame().iloc[:-10], reading=Reading(time_zone=ZONE))
    assert len(made) == 4


def test_utc_offsets_of_a_file_come_back(wide: Forecaster, tmp_path: Path) -> None:
    frame = wide_frame()
    file = tmp_path / "offsets.csv"
    stamps = frame["date"].dt.strftime("%Y-%m-%d %H:%M:%S") + "+01:00"
    frame.assign(date=stamps).to_csv(file, index=False)
    made = wide.predict(file)
    assert str(made["date"].iloc[0]) == "2020-01-06 00:00:00+01:00"
    np.testing.assert_array_equal(made.iloc[:, 1:], wide.predict(frame).iloc[:, 1:])


def test_polars_frames_keep_their_zone_and_their_nulls(
    wide: Forecaster, masking: Forecaster
) -> None:
    pl = pytest.importorskip("polars")
    frame = holed()
    columns = {name: frame[name].to_numpy() for name in frame}
    zoned = pl.DataFrame(columns).with_columns(
        pl.col("date").dt.replace_time_zone(ZONE), pl.col("a").fill_nan(None)
    )
    made = masking.predict(zoned)
    assert made.schema["date"] == pl.Datetime("us", ZONE)
    expected = masking.predict(frame)
    for name in "abc":
        assert made[name].to_list() == expected[name].tolist()
    assert made["date"].dt.replace_time_zone(None).to_list() == expected["date"].tolist()


def test_a_damaged_policy_is_refused(masked: Path, tmp_path: Path) -> None:
    content = read_checkpoint(masked)
    content[RECORD]["data"]["treatment"]["missing"] = "forget"
    torch.save(content, tmp_path / "damaged.ckpt")
    with pytest.raises(CheckpointError, match="record of the data is damaged"):
        Forecaster.load(tmp_path / "damaged.ckpt")


def test_new_series_with_holes_are_standardised_by_what_was_observed(wide: Forecaster) -> None:
    frame = wide_frame(names="xy", seed=4)
    frame.loc[[3, 115], "x"] = np.nan
    made = wide.predict(frame, new_series=True, reading=FILL)
    own = frame.copy()
    own["x"] = own["x"].interpolate()
    values = frame[["x", "y"]].to_numpy()
    mean, scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    x_TC = torch.from_numpy((own[["x", "y"]].to_numpy()[-12:] - mean) / scale).float()
    alone = wide._network(new_series=True)
    with torch.inference_mode():
        y_HC = alone(x_TC.T.unsqueeze(-1)).mean.squeeze(-1).T.double().numpy() * scale + mean
    np.testing.assert_allclose(made[["x", "y"]], y_HC, rtol=1e-4)
