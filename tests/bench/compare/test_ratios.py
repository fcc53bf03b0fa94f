"""Scores and differences of windows whose targets are observed in part."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsattn.bench.compare.errors import ErrorsOfRun, Sums
from tsattn.bench.compare.missing import notes_on_missing
from tsattn.bench.compare.ratios import (
    UNKNOWN,
    all_over_windows,
    part_over_seeds,
    part_over_windows,
    window_values,
)
from tsattn.bench.paired import over_windows, time_blocks

HORIZON, CHANNELS = 4, 3


def sums_of(value_WHC: np.ndarray) -> ErrorsOfRun:
    """Sum values that are NaN where no target was observed."""
    seen_WHC = ~np.isnan(value_WHC)
    channels, steps = (
        Sums(
            {metric: np.nansum(value_WHC, axis=axis) for metric in ("mse", "mae")},
            seen_WHC.sum(axis, dtype=np.int32),
        )
        for axis in (1, 2)
    )
    return ErrorsOfRun(channels, steps)


def values(windows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, size=(windows, HORIZON, CHANNELS))


def with_holes(windows: int, share: float) -> np.ndarray:
    found = values(windows)
    found[np.random.default_rng(1).random(found.shape) < share] = np.nan
    return found


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 9)), min_size=1).filter(
        lambda pairs: any(count for _, count in pairs)
    )
)
def test_mean_of_the_windows_values_is_the_ratio_of_the_sums(
    pairs: list[tuple[float, int]],
) -> None:
    sums = np.array([value if count else 0.0 for value, count in pairs])
    counts = np.array([count for _, count in pairs])
    found = window_values(sums, counts)
    assert found.mean() == pytest.approx(sums.sum() / counts.sum(), abs=1e-10)


def test_equal_counts_give_the_plain_means_of_the_windows() -> None:
    sums = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(window_values(sums, np.full((50, 3), 12)), sums / 12, atol=1e-14)


def test_nothing_missing_is_compared_as_plain_means_are() -> None:
    value_WHC, blocks = values(96), time_blocks(np.arange(96), 8)
    run = sums_of(value_WHC)
    sums, counts = run.channels.errors["mse"], run.channels.observed_WP
    cases = [(all_over_windows(sums, counts, blocks), value_WHC.mean((1, 2)))]
    for parts, means in ((run.channels, value_WHC.mean(1)), (run.steps, value_WHC.mean(2))):
        cases += [
            (part_over_windows(sums_W, counts_W, blocks), means_W)
            for sums_W, counts_W, means_W in zip(
                parts.errors["mse"].T, parts.observed_WP.T, means.T, strict=True
            )
        ]
    for found, means_W in cases:
        plain = over_windows(means_W, blocks)
        assert found.pairs == plain.pairs == 96
        for name in ("mean", "low", "high", "p"):
            assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-10), name
    assert notes_on_missing(run, ["a", "b", "c"]) == []


def test_interval_of_a_ratio_is_that_of_the_jackknife_over_blocks() -> None:
    """Leaving out one block after the other is another way to the same standard error."""
    blocks_W = time_blocks(np.arange(400), 8)
    value_WHC = with_holes(400, 0.5)
    value_WHC[::3] += 1  # larger differences where ...
    value_WHC[::3, 1:] = np.nan  # ... fewer targets were observed
    run = sums_of(value_WHC)
    sums, counts = run.channels.errors["mse"], run.channels.observed_WP
    groups = range(blocks_W.max() + 1)
    rest = [np.nanmean(value_WHC[blocks_W != group], axis=(0, 1)) for group in groups]
    for found, left_out in (
        (part_over_windows(sums[:, 0], counts[:, 0], blocks_W), np.array(rest)[:, 0]),
        (all_over_windows(sums, counts, blocks_W), np.array(rest).mean(1)),
    ):
        plain = over_windows(left_out, np.arange(len(groups)))
        assert plain.high is not None
        assert found.high is not None
        jackknife = (plain.high - plain.mean) * (len(groups) - 1)
        assert found.high - found.mean == pytest.approx(jackknife, rel=0.02)


def test_scores_are_means_over_what_was_observed() -> None:
    value_WHC = with_holes(40, 0.4)
    value_WHC[:, :, 1] = np.nan
    value_WHC[:, 2] = np.nan
    value_WHC[7] = np.nan
    run = sums_of(value_WHC)
    by_channel = [np.nanmean(value_WHC[:, :, 0]), np.nan, np.nanmean(value_WHC[:, :, 2])]
    np.testing.assert_allclose(run.channels.scores("mse"), by_channel)
    by_step = [np.nanmean(value_WHC[:, 0]), np.nanmean(value_WHC[:, 1]), np.nan,
               np.nanmean(value_WHC[:, 3])]  # fmt: skip
    np.testing.assert_allclose(run.steps.scores("mse"), by_step)
    assert run.score("mse") == pytest.approx(np.nanmean(by_channel))
    by_window = run.by_window("mse")
    assert np.flatnonzero(np.isnan(by_window)).tolist() == [7]
    assert by_window[0] == pytest.approx(np.mean([np.nanmean(value_WHC[0, :, c]) for c in (0, 2)]))
    notes = "; ".join(notes_on_missing(run, ["a", "b", "c"]))
    assert "1 of 40 windows have no observed target" in notes
    assert "channels without any observed target, and so without a score: b" in notes
    assert "steps without any observed target, and so without a score: 3" in notes


def test_channel_without_targets_has_no_difference_and_changes_no_other() -> None:
    blocks = time_blocks(np.arange(96), 8)
    value_WHC = with_holes(96, 0.3)
    value_WHC[:, :, 2] = np.nan
    run, two = sums_of(value_WHC).channels, sums_of(value_WHC[:, :, :2]).channels
    assert part_over_windows(run.errors["mse"][:, 2], run.observed_WP[:, 2], blocks) == UNKNOWN
    found = all_over_windows(run.errors["mse"], run.observed_WP, blocks)
    assert found.p is not None
    assert found == all_over_windows(two.errors["mse"], two.observed_WP, blocks)


def test_targets_in_few_blocks_have_a_difference_and_no_interval() -> None:
    """One block alone would have no spread, and so a p of 0."""
    blocks = time_blocks(np.arange(96), 8)
    value_WHC = values(96)
    value_WHC[8:, :, 1] = np.nan
    run = sums_of(value_WHC).channels
    found = part_over_windows(run.errors["mse"][:, 1], run.observed_WP[:, 1], blocks)
    assert (found.low, found.p, found.pairs) == (None, None, 8)
    assert found.mean == pytest.approx(value_WHC[:8, :, 1].mean())
    total = all_over_windows(run.errors["mse"], run.observed_WP, blocks)
    assert (total.low, total.p, total.pairs) == (None, None, 96)
    assert total.mean == pytest.approx(np.nanmean(value_WHC, axis=(0, 1)).mean())


def test_forecasts_that_are_no_numbers_have_no_difference() -> None:
    blocks = time_blocks(np.arange(96), 8)
    run = sums_of(values(96)).channels
    run.errors["mse"][5, 0] = np.nan
    assert math.isnan(sums_of(values(96)).score("mse") - ErrorsOfRun(run, run).score("mse"))
    assert all_over_windows(run.errors["mse"], run.observed_WP, blocks) == UNKNOWN
    assert part_over_windows(run.errors["mse"][:, 0], run.observed_WP[:, 0], blocks) == UNKNOWN
    assert part_over_seeds([0.1, math.nan]) == UNKNOWN
