"""Paired differences against formulas, tables and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tsattn.bench.paired import holm, over_seeds, over_windows

FINITE = st.floats(-1e3, 1e3)


def test_interval_over_seeds_is_the_textbooks() -> None:
    """Mean 2, deviation 1, three values: 2 +- 4.302653 / sqrt(3), t = 2 sqrt(3) at 2 df."""
    found = over_seeds([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert found.mean == 2.0
    assert found.pairs == 3
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)
    t = 2 * math.sqrt(3)  # for 2 degrees of freedom the distribution has a closed form
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))


@given(st.lists(FINITE, min_size=2, max_size=8).filter(lambda d: np.ptp(d) > 1e-3))
def test_p_is_below_a_limit_exactly_where_the_interval_excludes_zero(values: list[float]) -> None:
    found = over_seeds(values)
    assert found.low is not None
    assert found.high is not None
    assert found.p is not None
    assert found.low <= found.mean <= found.high
    if abs(found.p - 0.05) > 1e-6:
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    paired = stats.ttest_rel(values, np.zeros(len(values)))
    assert found.p == pytest.approx(paired.pvalue, rel=1e-6)


def test_one_seed_has_a_difference_and_no_interval() -> None:
    found = over_seeds([0.5])
    assert (found.mean, found.low, found.high, found.p, found.pairs) == (0.5, None, None, None, 1)
    with pytest.raises(ValueError, match="at least one difference, got none"):
        over_seeds([])


def test_differences_without_spread_have_an_interval_of_one_point() -> None:
    assert over_seeds([0.0, 0.0]).p == 1.0
    found = over_seeds([0.25, 0.25, 0.25])
    assert (found.low, found.high, found.p) == (0.25, 0.25, 0.0)


def test_holm_adjusts_as_in_his_table() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.4]) == [0.4]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_raw_value_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, found in zip(p, adjusted, strict=True):
        assert raw <= found <= min(1.0, len(p) * raw) + 1e-12
    order = sorted(range(len(p)), key=p.__getitem__)
    assert sorted(adjusted) == [adjusted[place] for place in order]


def autoregressive(random: np.random.Generator, size: int, rho: float) -> np.ndarray:
    values = np.empty(size)
    values[0] = random.normal() / math.sqrt(1 - rho**2)
    for place in range(1, size):
        values[place] = rho * values[place - 1] + random.normal()
    return values


def test_blocks_of_one_window_give_the_interval_of_independent_values() -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, 400)
    found = over_windows(values, 1)
    p = float(stats.ttest_1samp(values, 0)[1])  # pyright: ignore
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert found.p == pytest.approx(p, abs=0.02)


def test_blocks_cover_what_neighbours_have_in_common_and_single_windows_do_not() -> None:
    random = np.random.default_rng(7)
    covered = {1: 0, 40: 0}
    for _ in range(60):
        values = autoregressive(random, 800, rho=0.9)
        for block in covered:
            found = over_windows(values, block, resamples=400)
            assert found.low is not None
            assert found.high is not None
            covered[block] += found.low <= 0 <= found.high
    assert covered[40] >= 50
    assert covered[1] <= 35


def test_resampled_means_are_those_of_whole_blocks_on_a_circle() -> None:
    values = np.array([0.0, 0.0, 0.0, 6.0])
    found = over_windows(values, 4, resamples=50)
    assert found.low == found.high == found.mean == 1.5  # one block: every turn of the circle
    halves = over_windows(np.array([0.0, 0.0, 4.0, 4.0]), 2, resamples=500)
    assert (halves.low, halves.high) == (0.0, 4.0)


def test_same_windows_give_the_same_interval_and_a_difference_of_nothing_p_one() -> None:
    values = np.random.default_rng(3).normal(size=100)
    assert over_windows(values, 7) == over_windows(values.copy(), 7)
    assert over_windows(np.zeros(20), 5).p == 1.0


@pytest.mark.parametrize("block", [0, -1, 11])
def test_block_that_does_not_fit_is_refused(block: int) -> None:
    with pytest.raises(ValueError, match=rf"block must be within 1\.\.10 .*got {block}"):
        over_windows(np.zeros(10), block)
