"""Paired differences against formulas, tables and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tsattn.bench.paired import MIN_BLOCKS, holm, over_seeds, over_windows, time_blocks

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


def windows_without_a_difference(count: int, windows: int, horizon: int) -> np.ndarray:
    """Windows of white noise that share nothing but targets: the least they can depend."""
    noise = np.random.default_rng(11).normal(size=(count, windows + horizon - 1))
    sums = np.cumsum(np.pad(noise, ((0, 0), (1, 0))), axis=1)
    return (sums[:, horizon:] - sums[:, :-horizon]) / horizon


def p_values(differences_SW: np.ndarray, block: int) -> np.ndarray:
    blocks_W = time_blocks(np.arange(differences_SW.shape[1]), block)
    return np.array([over_windows(one_W, blocks_W).p for one_W in differences_SW])


def test_a_true_null_is_rejected_about_as_often_as_promised_on_etth1s_windows() -> None:
    """2689 windows, horizon 192: 7 % with blocks of two horizons, too many with shorter ones."""
    differences_SW = windows_without_a_difference(2000, 2689, 192)
    assert 0.04 < np.mean(p_values(differences_SW, 2 * 192) < 0.05) < 0.08
    assert np.mean(p_values(differences_SW, 192) < 0.05) > 0.09


def test_a_true_difference_is_found_on_etth1s_windows() -> None:
    differences_SW = windows_without_a_difference(300, 2689, 192)
    deviation = differences_SW.mean(axis=1).std()
    power = [np.mean(p_values(differences_SW + shift * deviation, 2 * 192) < 0.05)
             for shift in (2, -4, 6)]  # fmt: skip
    assert 0.35 < power[0] < power[1] < power[2]
    assert power[1] > 0.9
    assert power[2] > 0.99


@given(st.lists(FINITE, min_size=12, max_size=12).filter(lambda d: np.ptp(d) > 1e-3))
def test_blocks_of_equal_length_are_students_t_of_their_means(values: list[float]) -> None:
    means = np.reshape(values, (6, 2)).mean(axis=1)
    if np.ptp(means) < 1e-3:
        return
    found, textbooks = (
        over_windows(np.array(values), time_blocks(np.arange(12), 2)),
        over_seeds(means.tolist()),
    )
    assert (found.pairs, textbooks.pairs) == (12, 6)
    assert found.mean == pytest.approx(textbooks.mean, abs=1e-9)
    assert found.low == pytest.approx(textbooks.low, rel=1e-6, abs=1e-9)
    assert found.high == pytest.approx(textbooks.high, rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(textbooks.p, rel=1e-6)


def test_blocks_of_one_window_are_students_t_of_all() -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, 400)
    found = over_windows(values, time_blocks(np.arange(400), 1))
    assert found.p == pytest.approx(over_seeds(values.tolist()).p)


def test_series_that_move_together_count_once() -> None:
    values, times = np.random.default_rng(5).normal(size=40), np.arange(40) * 7
    one = over_windows(values, time_blocks(times, 5))
    both = over_windows(np.tile(values, 2), time_blocks(np.tile(times, 2), 5))
    assert both.pairs == 80
    assert both.p == pytest.approx(one.p)
    assert (both.low, both.high) == pytest.approx((one.low, one.high))


def test_blocks_hold_every_window_and_none_is_shorter_than_asked() -> None:
    for windows, block in ((158, 72), (2689, 384), (7, 7), (9, 1)):
        lengths = np.bincount(time_blocks(np.arange(windows), block))
        assert lengths.sum() == windows
        assert len(lengths) == windows // block
        assert lengths.min() >= block
        assert np.ptp(lengths) <= 1


def test_too_few_blocks_have_a_mean_and_no_verdict() -> None:
    values = np.random.default_rng(3).normal(5.0, 0.1, size=60)
    few = over_windows(values, time_blocks(np.arange(60), 11))
    assert few.mean == pytest.approx(values.mean())
    assert (few.low, few.high, few.p, few.pairs) == (None, None, None, 60)
    enough = over_windows(values, time_blocks(np.arange(60), 60 // MIN_BLOCKS))
    assert enough.p is not None
    assert enough.p < 0.001


def test_windows_without_spread_have_an_interval_of_one_point() -> None:
    blocks_W = time_blocks(np.arange(20), 3)
    assert over_windows(np.zeros(20), blocks_W).p == 1.0
    for values in (np.full(20, 0.25), np.tile([0.0, 0.5], 10)):  # no spread among the blocks
        found = over_windows(values, time_blocks(np.arange(20) // 2, 1))
        assert (found.low, found.high, found.p) == (0.25, 0.25, 0.0)


@pytest.mark.parametrize("block", [0, -1, 11])
def test_block_that_does_not_fit_is_refused(block: int) -> None:
    with pytest.raises(ValueError, match=rf"block must be within 1\.\.10 .*got {block}"):
        time_blocks(np.arange(10), block)


def test_windows_without_their_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="each with its block; got 3, 2"):
        over_windows(np.zeros(3), time_blocks(np.arange(2), 1))
    with pytest.raises(ValueError, match="expected windows"):
        over_windows(np.zeros(0), np.zeros(0, dtype=np.intp))
