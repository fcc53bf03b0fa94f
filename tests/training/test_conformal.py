"""Split-conformal calibration: ranks, order statistics, and the coverage that they promise."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.forecast.made import long_frame
from tests.training.tiny import RECIPE, Finished, stored_result
from tsattn.data.windows import WindowBatch, Windows
from tsattn.errors import ConfigError, ExistsError
from tsattn.models import Forecast
from tsattn.training.calibrating import calibrate_run
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.command import run
from tsattn.training.conformal import (
    COARSE,
    FINE,
    RECORD_KEY,
    Calibration,
    calibrate,
    conformal_rank,
)

TENTHS = st.integers(1, 999).map(lambda tenths: tenths / 10)


@given(st.integers(1, 5000), TENTHS)
def test_rank_is_the_first_that_holds_the_level_in_exact_arithmetic(n: int, level: float) -> None:
    rank = conformal_rank(n, level)
    share = Decimal(str(level)) / 100
    assert Decimal(rank) / (n + 1) >= share
    assert Decimal(rank - 1) / (n + 1) < share


def test_rank_is_not_led_astray_by_rounding() -> None:
    assert [conformal_rank(9, level) for level in (80, 90, 95)] == [8, 9, 10]
    assert conformal_rank(99, 99) == 99
    assert conformal_rank(999, 99.9) == 999
    assert conformal_rank(19, 95) == 19


def windows_of(values_RC: torch.Tensor, series: int = 1) -> Windows:
    """Windows of context 1 and horizon 2, of equally long series under each other."""
    rows = len(values_RC) // series
    starts = torch.cat([torch.arange(rows - 2) + one * rows for one in range(series)])
    owners = torch.arange(series).repeat_interleave(rows - 2)
    return Windows(values_RC, values_RC[:, :0], starts, owners, 1, 2)


def last_value(batch: WindowBatch) -> Forecast:
    return Forecast(batch.past_BTC.expand(-1, 2, -1))


def with_quantiles(batch: WindowBatch) -> Forecast:
    mean = batch.past_BTC.expand(-1, 2, -1)
    return Forecast(mean, torch.stack([mean - 2, mean - 0.5, mean, mean + 1, mean + 1.5], -1))


def test_stored_scores_are_numpys_sorted_residuals() -> None:
    values = torch.randn(60, 3).cumsum(0)
    made = calibrate(last_value, windows_of(values))
    assert made.windows == (58, 58, 58)
    assert made.pairs == ((0.5, 0.5),)
    for step in (1, 2):
        residuals = (values[step : step + 58] - values[:58]).abs().numpy()
        ordered = np.sort(residuals, axis=0)
        for level in (50, 80, 95):
            expected = ordered[int(np.ceil(59 * level / 100 - 1e-9)) - 1]
            got = made.scores(level, "abc", range(3))[step - 1]
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_scores_of_quantiles_are_the_distance_outside_of_their_pair() -> None:
    values = torch.randn(40, 1).cumsum(0)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    made = calibrate(with_quantiles, windows_of(values), quantiles=levels)
    assert made.pairs == ((0.05, 0.95), (0.25, 0.75))
    change = (values[1:39] - values[:38]).numpy()[:, 0]
    for level, (low, high) in {80: (-2, 1.5), 90: (-2, 1.5), 60: (-0.5, 1)}.items():
        expected = np.sort(np.maximum(low - change, change - high))
        rank = int(np.ceil(39 * level / 100 - 1e-9))
        assert made.scores(level, "a", [0])[0, 0] == pytest.approx(expected[rank - 1], rel=1e-5)
    assert made.scores(50, "a", [0]).min() < 0  # a pair too wide is narrowed


def test_each_series_has_its_own_scores() -> None:
    values = torch.cat([torch.randn(30, 1), 100 * torch.randn(30, 1)])
    made = calibrate(last_value, windows_of(values, 2), series=2)
    alone = calibrate(last_value, windows_of(values[30:]))
    assert made.windows == (28, 28)
    torch.testing.assert_close(made.scores_PLHK[..., 1:], alone.scores_PLHK)


def test_level_between_two_stored_ones_gets_the_higher() -> None:
    made = calibrate(last_value, windows_of(torch.randn(400, 1)))
    assert torch.equal(made.scores(80.4, "a", [0]), made.scores(81, "a", [0]))
    assert set(made.levels) == set(map(float, FINE))


def test_level_that_needs_more_windows_is_refused_with_what_they_allow() -> None:
    made = calibrate(last_value, windows_of(torch.randn(21, 2)))
    assert made.scores(95, "ab", [0, 1]).isfinite().all()
    said = r"level 96 needs more validation windows than the 19 of 'a', 'b': they allow at most 95 "
    with pytest.raises(ConfigError, match=said):
        made.scores(96, "ab", [0, 1])


def test_series_without_windows_are_named_with_what_helps() -> None:
    scores = torch.ones(1, 2, 3, 4)
    scores[..., 1:3] = torch.inf
    made = Calibration((80.0, 90.0), ((0.5, 0.5),), scores, (30, 0, 2, 30))
    assert made.scores(90, ["a", "d"], [0, 3]).isfinite().all()
    said = (
        r"level 90 needs more validation windows than the 0 to 2 of 'b', 'c': they allow no "
        "interval; forecast without them, or without levels"
    )
    with pytest.raises(ConfigError, match=said):
        made.scores(90, "abcd", [0, 1, 2, 3])


@pytest.mark.parametrize("level", [20, 99.5])
def test_level_beyond_the_stored_ones_is_refused_with_those(level: float) -> None:
    levels = tuple(map(float, COARSE))
    scores = torch.ones(1, len(levels), 1, 1)
    made = Calibration(levels, ((0.5, 0.5),), scores, (10**6,))
    with pytest.raises(ConfigError, match=f"level {level:g} is beyond .*from 50 to 99$"):
        made.scores(level, "a", [0])


def test_record_is_read_back_and_what_is_damaged_refused() -> None:
    made = calibrate(last_value, windows_of(torch.randn(50, 2)))
    again = Calibration.of(made.record())
    assert again.windows == made.windows
    assert torch.equal(again.scores_PLHK, made.scores_PLHK)
    record = made.record()
    for damage in (
        {"windows": [1]},
        {"levels": record["levels"][::-1]},
        {"scores": record["scores"].flip(1)},
        {"scores": record["scores"] * torch.nan},
        {"pairs": []},
    ):
        with pytest.raises(ValueError, match="conformal"):
            Calibration.of(record | damage)


@pytest.mark.parametrize("level", [50, 80, 95])
def test_coverage_of_exchangeable_windows_is_the_level(level: int) -> None:
    """Independent windows: coverage over many calibrations lies in the binomial range."""
    rng = np.random.default_rng(level)
    calibrations, n = 4000, 24
    scores = np.abs(rng.standard_t(3, size=(calibrations, n + 1)))
    ordered = np.sort(scores[:, :n], axis=1)
    covered = scores[:, n] <= ordered[:, conformal_rank(n, level) - 1]
    promised = conformal_rank(n, level) / (n + 1)
    low, high = binom.interval(1 - 1e-6, calibrations, promised)
    assert low <= covered.sum() <= high
    assert promised >= level / 100


def test_coverage_of_an_exchangeable_series_through_calibrate() -> None:
    noise = torch.randn(4, 6000, 1)
    covered = []
    for one in noise:
        flat = calibrate(lambda batch: Forecast(0 * batch.future_BHC), windows_of(one[:3000]))
        covered.append((one[3000:].abs() <= flat.scores(90, "a", [0])[0]).float())
    assert torch.cat(covered).mean().item() == pytest.approx(0.9, abs=0.02)


def test_fit_keeps_a_calibration_that_stays_small(finished: Finished) -> None:
    content = read_checkpoint(finished.folder.best)
    record = content[RECORD][RECORD_KEY]
    made = Calibration.of(record)
    assert made.scores_PLHK.shape == (1, len(FINE), 12, 7)
    assert set(made.windows) == {86}
    assert stored_result(finished.folder)["conformal"]["windows"] == 86
    assert RECORD_KEY not in read_checkpoint(finished.folder.last)[RECORD]


def test_horizon_192_of_seven_channels_takes_a_third_of_a_mebibyte() -> None:
    values = torch.randn(2 + 192 + 100, 7)
    starts = torch.arange(100)
    windows = Windows(values, values[:, :0], starts, 0 * starts, 2, 192)
    made = calibrate(lambda batch: Forecast(0 * batch.future_BHC), windows)
    assert made.scores_PLHK.numel() * 4 < 0.35 * 2**20


Write = Callable[..., Path]


def small(file: Path, run_dir: Path, *words: object) -> list[str]:
    """Return what trains DLinear on a file for two epochs."""
    sizes = ["--data.context", 12, "--data.horizon", 4, "--trainer.max_epochs", 2]
    typed = ["fit", "--config", RECIPE, "--model.network", "DLinear", "--model.network.kernel_size"]
    typed += [3, "--data.dataset", file, *sizes, "--run_dir", run_dir, *words]
    return list(map(str, typed))


def test_old_run_is_calibrated_by_the_command_function(write_wide: Write, tmp_path: Path) -> None:
    file = write_wide(tmp_path / "own.csv", rows=300)
    expected = run(small(file, tmp_path / "with"))
    run(small(file, tmp_path / "without", "--calibrate", "false"))
    best = tmp_path / "without" / "checkpoints" / "best.ckpt"
    assert RECORD_KEY not in read_checkpoint(best)[RECORD]
    made = calibrate_run(tmp_path / "without")
    reference = read_checkpoint(tmp_path / "with" / "checkpoints" / "best.ckpt")
    stored = read_checkpoint(best)
    assert torch.equal(made.scores_PLHK, Calibration.of(reference[RECORD][RECORD_KEY]).scores_PLHK)
    for name, weights in reference["state_dict"].items():
        assert torch.equal(stored["state_dict"][name], weights)
    assert expected is not None
    assert expected["conformal"]["scores"] == "absolute residuals"
    written = json.loads((tmp_path / "without" / "result.json").read_text(encoding="utf-8"))
    assert written["conformal"] == expected["conformal"]
    assert written["test"] == expected["test"]
    with pytest.raises(ExistsError, match="calibrated already; replace that with --overwrite"):
        calibrate_run(tmp_path / "without")
    assert torch.equal(
        calibrate_run(tmp_path / "without", overwrite=True).scores_PLHK, made.scores_PLHK
    )


def test_places_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        calibrate_run(tmp_path)


def test_other_data_are_refused(write_wide: Write, tmp_path: Path) -> None:
    file = write_wide(tmp_path / "own.csv", rows=300)
    run(small(file, tmp_path / "run", "--calibrate", "false"))
    write_wide(file, rows=300, seed=5)
    with pytest.raises(ValueError, match="bring the file that it was trained on"):
        calibrate_run(tmp_path / "run")


def test_result_has_loss_and_coverage_of_quantiles(write_wide: Write, tmp_path: Path) -> None:
    file = write_wide(tmp_path / "own.csv", rows=200)
    words: list[Any] = ["fit", "--config", RECIPE, "--data.dataset", file, "--data.context", 36]
    words += ["--data.horizon", 2, "--trainer.max_epochs", 1, "--run_dir", tmp_path / "run"]
    words += ["--model.network.quantiles", "[0.1,0.5,0.9]"]
    with pytest.raises(ConfigError, match="the loss mse would train one of them alone"):
        run(list(map(str, words)))
    predictions = tmp_path / "p.npz"
    words += ["--model.loss", "quantile", "--save_predictions", predictions]
    result = run(list(map(str, words)))
    assert result is not None
    quantiles = result["quantiles"]
    assert quantiles["levels"] == [0.1, 0.5, 0.9]
    (interval,) = quantiles["intervals"]
    assert interval["level"] == 80
    low, middle, high = quantiles["share_below"]
    assert low <= middle <= high
    assert interval["coverage"] == pytest.approx(high - low, abs=1e-6)
    assert interval["width"] > 0
    with np.load(predictions) as stored:
        below = (stored["target"] <= stored["prediction"]).mean()
    assert middle == pytest.approx(below, abs=1e-6)
    assert result["conformal"]["scores"] == "outside of 0.1 to 0.9"


def test_limited_validation_still_calibrates_every_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long_frame((200, 200, 200)).to_csv(tmp_path / "long.csv", index=False)
    words = ["--trainer.limit_val_batches", 1, "--data.eval_batch_size", 12]
    run(small(tmp_path / "long.csv", tmp_path / "run", *words))
    record = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")[RECORD][RECORD_KEY]
    assert record["windows"] == [4, 4, 4]
    assert "no intervals of them" not in capsys.readouterr().out
    words[-1] = 2
    result = run(small(tmp_path / "long.csv", tmp_path / "few", *words))
    assert result is not None
    assert result["conformal"]["highest_level"] is None
    said = " ".join(capsys.readouterr().out.split())
    assert "too few validation windows (--trainer.limit_val_batches 1), so there are no" in said
