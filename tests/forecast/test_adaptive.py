"""Adaptive conformal intervals against a plain loop, and under drift."""

from math import ceil

import numpy as np
import torch

from tests.training.test_conformal import windows_of
from tsattn.forecast.adaptive import POOL, _taken, _validation_pool, adaptive_bands
from tsattn.forecast.intervals import Ahead, Intervals
from tsattn.models import Forecast
from tsattn.training.conformal import Calibration, calibrate

WINDOWS, HORIZON = 80, 3


def calibration(windows: int = 600, horizon: int = 2) -> Calibration:
    torch.manual_seed(3)
    values = torch.randn(windows + 2, 1)
    return calibrate(lambda batch: Forecast(0 * batch.future_BHC), windows_of(values))


def by_hand(
    scores: np.ndarray, pool: np.ndarray, alpha: float, step: int, gamma: float
) -> np.ndarray:
    """Return what each window takes for one name: plain Python, horizon step by horizon step."""
    taken = np.empty_like(scores)
    for h in range(scores.shape[1]):
        kept, now, seen = list(pool[:, h]), alpha, 0
        for window in range(len(scores)):
            # row of the cutoff: window * step; truth of (w, h) lies h + 1 rows after its cutoff
            while seen < window and seen * step + h + 1 <= window * step:
                now += gamma * (alpha - (scores[seen, h] > taken[seen, h]))
                kept[seen % len(kept)] = scores[seen, h]
                seen += 1
            rank = ceil((len(kept) + 1) * (1 - now) - 1e-9)
            taken[window, h] = sorted(kept)[min(max(rank, 1), len(kept)) - 1]
    return taken


def test_every_window_takes_what_a_plain_loop_takes() -> None:
    rng = np.random.default_rng(0)
    for step in (1, 2, 5):
        scores = np.abs(rng.normal(size=(WINDOWS, HORIZON, 2))) * 3
        pool = np.abs(rng.normal(size=(20, HORIZON, 2)))
        alphas = [0.2, 0.05]
        made_LWHK = _taken(
            torch.from_numpy(scores),
            torch.from_numpy(pool),
            torch.tensor(alphas).double(),
            step,
            0.05,
        )
        for alpha, made in zip(alphas, made_LWHK, strict=True):
            for name in range(2):
                expected = by_hand(scores[..., name], pool[..., name], alpha, step, 0.05)
                np.testing.assert_allclose(made[..., name], expected)


def test_what_is_not_known_yet_changes_nothing() -> None:
    """Scores of the last windows, and of steps beyond the cutoff, leave the others as they are."""
    scores = torch.rand(30, HORIZON, 1, dtype=torch.float64)
    pool = torch.rand(20, HORIZON, 1, dtype=torch.float64)
    aim = torch.tensor([0.2], dtype=torch.float64)
    before = _taken(scores, pool, aim, 1, 0.1)[0]
    for h in range(HORIZON):
        other = scores.clone()
        other[10, h] = 50
        after = _taken(other, pool, aim, 1, 0.1)[0]
        known = 10 + h + 1
        assert torch.equal(after[:known], before[:known])
        assert not torch.equal(after[known:], before[known:])


def test_band_that_was_widened_to_its_forecast_misses_only_what_lies_outside() -> None:
    """The truth lies between the point forecast and a pair of quantiles that lies above it."""
    windows = 40
    made = calibration()
    scores_PLHK = (
        -torch.arange(len(made.levels), 0, -1).reshape(1, -1, 1, 1).repeat(1, 1, 2, 1) / 10
    )
    conformal = Calibration(made.levels, ((0.1, 0.9),), scores_PLHK, (600,))
    quantiles_Q = torch.tensor([10.0, 15.0, 20.0])
    ahead = Ahead(torch.zeros(windows, 2, 1), quantiles_Q.expand(windows, 2, 1, 3))
    intervals = Intervals((0.1, 0.5, 0.9), conformal)
    inside, outside = (torch.full((windows, 2, 1), value) for value in (5.0, -1.0))
    for truth, misses in ((inside, False), (outside, True)):
        band = adaptive_bands(intervals, ahead, truth, 1, [80.0], ["a"], [0])[80.0]
        assert bool((band.lower_WHK <= truth).all()) is not misses
        scores = torch.maximum(10 - truth, truth - 20).double()
        pool = _validation_pool(intervals, [80.0], ["a"], [0])
        levels = torch.tensor([0.2], dtype=torch.float64)
        judged = scores if misses else torch.full_like(scores, -torch.inf)
        expected = _taken(scores, pool, levels, 1, 0.02, judged)[0]
        shown = torch.maximum(20 + expected, torch.zeros(()).double())
        torch.testing.assert_close(band.upper_WHK, shown)


def test_pool_is_every_whole_percent_of_the_validation_scores() -> None:
    made = calibration()
    pool = _validation_pool(Intervals(None, made), [80.0], ["a"], [0])
    assert pool.shape == (POOL - 1, 2, 1)
    ordered = pool[:, 0, 0].sort().values
    place = made.levels.index(80.0)
    assert ordered[79] == made.scores_PLHK[0, place, 0, 0].double()


def test_coverage_holds_where_errors_grow_and_fixed_intervals_fail() -> None:
    intervals = Intervals(None, calibration())
    generator = torch.Generator().manual_seed(1)
    growth = torch.linspace(1, 6, 1500).reshape(-1, 1, 1)
    truth = growth * torch.randn(1500, 2, 1, generator=generator)
    ahead = Ahead(torch.zeros(1500, 2, 1))
    for level in (80.0, 90.0):
        fixed = intervals.bands(ahead, [level], "conformal", ["a"], [0])[level]
        adaptive = adaptive_bands(intervals, ahead, truth, 1, [level], ["a"], [0])[level]
        inside = [
            ((band.lower_WHK <= truth) & (truth <= band.upper_WHK)).double().mean().item()
            for band in (fixed, adaptive)
        ]
        assert inside[0] < level / 100 - 0.2
        assert abs(inside[1] - level / 100) < 0.02
