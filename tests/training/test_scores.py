"""Scores against numpy, and what they may not depend on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import (
    BATCH,
    CONTEXT,
    HORIZON,
    TEST_WINDOWS,
    Finished,
    fit,
)
from tsattn.errors import ExistsError
from tsattn.resources import datasets_dir
from tsattn.training.command import run

KEYS = {
    "prediction",
    "target",
    "prediction_original",
    "target_original",
    "series",
    "channels",
}


@pytest.fixture(scope="session")
def stored(finished: Finished) -> dict[str, np.ndarray]:
    with np.load(finished.predictions) as file:
        return dict(file)


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    """The numbers of the file itself."""
    return pd.read_csv(datasets_dir() / "national_illness.csv").iloc[:, 1:].to_numpy(np.float64)


def rescored(finished: Finished, *words: object) -> dict:
    result = run(
        [
            "test",
            "--config",
            str(finished.folder.config),
            "--ckpt_path",
            "best",
            *map(str, words),
        ]
    )
    assert result is not None
    return result


def test_stored_forecasts_are_windows_by_horizon_by_channels(
    stored: dict[str, np.ndarray],
) -> None:
    assert stored.keys() == KEYS
    for name in ("prediction", "target", "prediction_original", "target_original"):
        assert stored[name].shape == (TEST_WINDOWS, HORIZON, 7)
        assert np.isfinite(stored[name]).all()
    assert stored["channels"].tolist()[-1] == "OT"
    assert set(stored["series"].tolist()) == {"illness"}


def test_scores_are_numpys_on_the_stored_forecasts(
    finished: Finished, stored: dict[str, np.ndarray]
) -> None:
    error = stored["prediction"].astype(np.float64) - stored["target"]
    test = finished.result["test"]
    assert test["mse"] == pytest.approx(np.square(error).mean(), rel=1e-6)
    assert test["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert test["per_channel_mse"] == pytest.approx(
        np.square(error).mean(axis=(0, 1)).tolist(), rel=1e-6
    )


def test_published_score_leaves_out_exactly_what_a_last_full_batch_leaves(
    finished: Finished, stored: dict[str, np.ndarray]
) -> None:
    kept = TEST_WINDOWS // BATCH * BATCH
    assert 0 < kept < TEST_WINDOWS
    error = (stored["prediction"].astype(np.float64) - stored["target"])[:kept]
    published = finished.result["as_published"]
    assert published["windows_scored"] == kept
    assert published["mse"] == pytest.approx(np.square(error).mean(), rel=1e-6)
    assert published["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)


def test_original_targets_are_the_files_own_numbers(
    stored: dict[str, np.ndarray], rows: np.ndarray
) -> None:
    first = 773  # the row after the validation part
    for window in (0, 1, TEST_WINDOWS - 1):
        truth = rows[first + window : first + window + HORIZON]
        np.testing.assert_allclose(stored["target_original"][window], truth, rtol=1e-5, atol=1e-3)
    assert first + TEST_WINDOWS - 1 + HORIZON == len(rows)


def test_standardised_values_use_the_training_rows_mean_and_deviation(
    stored: dict[str, np.ndarray], rows: np.ndarray
) -> None:
    mean, scale = rows[:676].mean(axis=0), rows[:676].std(axis=0)
    for kind in ("prediction", "target"):
        np.testing.assert_allclose(
            stored[kind], (stored[f"{kind}_original"] - mean) / scale, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("size", [7, 50, 1000])
def test_score_does_not_depend_on_the_evaluation_batch(finished: Finished, size: int) -> None:
    result = rescored(finished, "--data.eval_batch_size", size)
    for part in ("test", "as_published"):
        assert result[part]["windows_scored"] == finished.result[part]["windows_scored"]
        assert result[part]["mse"] == pytest.approx(finished.result[part]["mse"], rel=1e-6)
        assert result[part]["mae"] == pytest.approx(finished.result[part]["mae"], rel=1e-6)


def test_published_score_follows_the_training_batch(finished: Finished) -> None:
    result = rescored(finished, "--data.batch_size", 100, "--data.eval_batch_size", 7)
    assert result["as_published"]["windows_scored"] == 100
    assert result["test"]["windows_scored"] == TEST_WINDOWS


def test_published_score_is_absent_where_published_code_would_score_nothing(
    finished: Finished,
) -> None:
    result = rescored(finished, "--data.batch_size", TEST_WINDOWS + 1)
    assert result["as_published"] == {"mse": None, "mae": None, "windows_scored": 0}


@pytest.mark.parametrize("network", ["LastValue", "WindowMean"])
def test_floor_is_scored_without_a_checkpoint_and_equals_the_floor(
    finished: Finished, network: str
) -> None:
    sizes = ["--data.context", str(CONTEXT), "--data.horizon", str(HORIZON)]
    result = run(["test", "--model.network", network, "--data.dataset", "illness", *sizes])
    assert result is not None
    name = {"LastValue": "last_value", "WindowMean": "window_mean"}[network]
    for score in ("mse", "mae"):
        assert result["test"][score] == result["floors"][name][score]
        assert result["test"][score] == pytest.approx(
            finished.result["floors"][name][score], rel=1e-6
        )


def test_seasonal_floor_is_scored_at_the_season_of_the_data() -> None:
    result = run(
        [
            "test",
            *("--model.network", "SeasonalNaive", "--model.network.season", "52"),
            *("--data.dataset", "illness", "--data.context", "104", "--data.horizon", "36"),
        ]
    )
    assert result is not None
    assert result["test"]["mse"] == result["floors"]["seasonal_naive"]["mse"]
    assert result["test"]["windows_scored"] == 158


def test_a_part_of_the_test_is_not_passed_off_as_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    result = fit(
        tmp_path / "run",
        *("--trainer.max_epochs", 1, "--trainer.limit_test_batches", 2),
        *("--save_predictions", file),
    )
    assert result["test"]["windows_scored"] == 2 * BATCH
    assert result["test"]["windows_dropped"] == TEST_WINDOWS - 2 * BATCH
    assert result["limits"] == {"limit_test_batches": 2}
    with np.load(file) as stored:
        error = stored["prediction"].astype(np.float64) - stored["target"]
    assert error.shape == (2 * BATCH, HORIZON, 7)
    assert np.square(error).mean() == pytest.approx(result["test"]["mse"], rel=1e-6)


def test_stored_forecasts_are_not_replaced_unasked(finished: Finished, tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    file.write_text("precious")
    with pytest.raises(ExistsError, match=r"mine\.npz exists.*--overwrite"):
        rescored(finished, "--save_predictions", file)
    with pytest.raises(ExistsError, match=r"mine\.npz exists"):
        fit(tmp_path / "run", "--save_predictions", file)
    assert file.read_text() == "precious"
    assert not (tmp_path / "run").exists()
    rescored(finished, "--save_predictions", file, "--overwrite")
    with np.load(file) as stored:
        assert stored.keys() == KEYS
