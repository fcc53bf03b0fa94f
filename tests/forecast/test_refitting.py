"""Backtests that train again before every window."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.conftest import Fit
from tests.forecast.made import long_frame, wide_frame
from tests.forecast.test_intervals import DLINEAR
from tsattn.errors import ConfigError
from tsattn.forecast import Forecaster
from tsattn.training.refit import refit, undisturbed_process


def test_each_window_is_forecast_by_a_network_of_the_rows_before_it(
    fitted: Fit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = wide_frame(220)
    run = fitted(frame, *DLINEAR)
    forecaster = Forecaster.load(run)
    torch.manual_seed(5)
    made = forecaster.backtest(frame, 2, 3, refit=True, levels=[80])
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)  # random streams are as they were
    said = capsys.readouterr().out
    assert "refit: 2 trainings of 1 epoch on up to 216 rows" in said
    before = frame.iloc[: 220 - 4 - 3]
    before.to_csv(tmp_path / "before.csv", index=False)
    with undisturbed_process():
        refit(run, data=tmp_path / "before.csv", run_dir=tmp_path / "again")
    expected = Forecaster.load(tmp_path / "again").predict(before, levels=[80])
    forecast_HK = made.forecast_WHK["original"][0]
    np.testing.assert_allclose(forecast_HK, expected[["a", "b", "c"]], rtol=1e-4)
    plain = forecaster.backtest(frame, 2, 3)
    assert not [note for note in made.notes if "too good" in note]
    assert not torch.allclose(plain.forecast_WHK["original"], made.forecast_WHK["original"])
    assert made.scale_K is not None
    width = (made.bands[80].upper_WHK - made.bands[80].lower_WHK)[0] * made.scale_K
    for place, name in enumerate("abc"):
        expected_width = expected[f"{name}-hi-80"] - expected[f"{name}-lo-80"]
        np.testing.assert_allclose(width[:, place], expected_width, rtol=1e-4)


def test_windows_that_chose_the_epochs_are_counted(fitted: Fit) -> None:
    frame = wide_frame(220)
    run = fitted(frame, *DLINEAR)
    made = Forecaster.load(run).backtest(run.parent / "own.csv", 2, 50, refit=True)
    note = next(note for note in made.notes if "too good" in note)
    assert "1 of 2 windows forecast rows that lie before the end of the validation part" in note


def test_series_of_a_long_frame_are_cut_each_at_its_own_end(fitted: Fit) -> None:
    frame = long_frame((150, 130, 120))
    forecaster = Forecaster.load(fitted(frame, *DLINEAR))
    some = frame.query("unique_id != 's1'")
    made = forecaster.backtest(some, 1, refit=True)
    assert made.names == ("s0", "s2")
    assert np.isfinite(made.scores("total")["mse"]).all()
    # the last rows are not looked at: others in their place change no forecast
    spoilt = pd.concat(
        rows.assign(y=[*rows["y"].iloc[:-4], 1.0, 2.0, 3.0, 4.0])
        for _, rows in some.groupby("unique_id")
    )
    again = forecaster.backtest(spoilt, 1, refit=True)
    torch.testing.assert_close(
        again.forecast_WHK["original"], made.forecast_WHK["original"], rtol=1e-6, atol=1e-6
    )


def test_refit_that_cannot_be_is_refused(wide: Forecaster, fitted: Fit) -> None:
    with pytest.raises(ConfigError, match=r"refit=True needs the recipe: load.*run folder"):
        wide.backtest(wide_frame(), refit=True)
    forecaster = Forecaster.load(fitted(wide_frame(220), *DLINEAR))
    with pytest.raises(ConfigError, match="would train 21 times; at most 20 windows"):
        forecaster.backtest(wide_frame(220), windows=21, refit=True)
    with pytest.raises(ConfigError, match="so there are no new series"):
        forecaster.backtest(wide_frame(220), refit=True, new_series=True)
