import numpy as np
import pytest
import torch

from tsattn.data import Scaler


def test_standardised_training_rows_have_mean_zero_and_population_deviation_one() -> None:
    rows = np.random.default_rng(0).normal(5.0, 3.0, (100, 4))
    scaler = Scaler.fit([rows])
    assert scaler.mean_SC.dtype == scaler.scale_SC.dtype == torch.float64
    assert scaler.mean_SC[0].numpy() == pytest.approx(rows.mean(0), rel=1e-12)
    assert scaler.scale_SC[0].numpy() == pytest.approx(rows.std(0, ddof=0), rel=1e-12)
    standardised = scaler.standardise(rows)
    assert standardised.dtype == torch.float32
    assert standardised.mean(0).abs().max() < 1e-6
    assert (standardised.std(0, correction=0) - 1).abs().max() < 1e-6


def test_every_series_has_its_own_scale() -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(0, 1, (50, 2)), random.normal(100, 7, (80, 2))]
    scaler = Scaler.fit(rows)
    assert scaler.mean_SC.shape == (2, 2)
    for index, one in enumerate(rows):
        assert scaler.standardise(one, index).mean(0).abs().max() < 1e-5


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e9 + 0.1, -9999.0])
def test_a_constant_channel_is_not_divided_by_zero(value: float) -> None:
    rows = np.full((1000, 2), value)
    rows[:, 1] = np.arange(1000)
    scaler = Scaler.fit([rows])
    assert scaler.scale_SC[0, 0] == 1
    standardised = scaler.standardise(rows)
    assert standardised.isfinite().all()
    assert standardised[:, 0].abs().max() < 1e-3


def test_rounding_noise_on_a_constant_is_not_blown_up() -> None:
    noise = np.random.default_rng(0).choice([-1, 0, 1], 1000)
    rows = (1e6 * (1 + noise * np.finfo(np.float64).eps)).reshape(-1, 1)
    assert np.ptp(rows) > 0
    assert Scaler.fit([rows]).standardise(rows).abs().max() < 1e-3


def test_to_original_undoes_standardise_for_windows_of_several_series() -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(50, 3, (40, 3)), random.normal(-7, 0.1, (40, 3))]
    scaler = Scaler.fit(rows)
    windows = torch.stack([scaler.standardise(one[:12], index) for index, one in enumerate(rows)])
    original = scaler.to_original(windows, torch.tensor([0, 1]))
    assert original.dtype == torch.float64
    for index, one in enumerate(rows):
        assert original[index].numpy() == pytest.approx(one[:12], rel=1e-5)
