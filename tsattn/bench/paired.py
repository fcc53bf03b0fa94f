"""Whether two settings differ, from differences that were paired: over seeds, or over windows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Coverage of every interval."""

MIN_BLOCKS = 6
"""With fewer blocks of windows there is no verdict: five that all have the same sign are no more
than p = 2 / 2^5 = 0.063, and only a normal distribution of their means could say more."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and how far it can be trusted.

    Attributes:
        mean: mean of the differences; negative where the first of the two has the smaller error.
        low: lower end of the interval; None where there is none.
        high: upper end of the interval.
        p: two-sided probability of a mean at least that far from 0, were the true one 0.
        pairs: number of differences.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def over_seeds(differences: Sequence[float], level: float = LEVEL) -> Difference:
    """Compare over seeds: Student's interval of the mean difference.

    ``mean(d) +- t(n - 1) sd(d) / sqrt(n)``, from at least two differences; one has no interval.

    Args:
        differences: one per seed.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no difference at all.
    """
    if not differences:
        raise ValueError("over_seeds needs at least one difference, got none")
    values = np.asarray(differences, dtype=np.float64)
    mean = math.fsum(differences) / len(differences)
    if len(values) < 2:
        return Difference(mean, None, None, None, len(values))
    spread = float(values.std(ddof=1)) if np.ptp(values) else 0.0  # ptp has no rounding errors
    error = spread / math.sqrt(len(values))
    return _students(mean, error, len(values) - 1, len(values), level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, in the order given.

    The i-th smallest of m becomes ``max over j <= i of min(1, (m - j + 1) p_j)``: the probability
    that any of them is below a limit by chance alone is then at most that limit.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def time_blocks(times_W: NDArray[Any], block: int) -> NDArray[np.intp]:
    """Cut the time of windows into blocks of equal length, and number them.

    There are as many blocks as fit; what is left over is shared out among them, so that no window
    is lost. Windows that begin at the same time, of several series, are in the same block.

    Args:
        times_W: when every window begins; only the order counts.
        block: shortest length of a block, in different times.

    Returns:
        The block of every window, from 0.

    Raises:
        ValueError: a block that is not within 1..different times.

    Example:
        >>> time_blocks(np.arange(7), 3).tolist()
        [0, 0, 0, 0, 1, 1, 1]
    """
    times, rank_W = np.unique(times_W, return_inverse=True)
    if not 1 <= block <= len(times):
        raise ValueError(f"block must be within 1..{len(times)} (the windows), got {block}")
    return rank_W * (len(times) // block) // len(times)


def over_windows(
    differences_W: NDArray[np.float64], blocks_W: NDArray[np.intp], level: float = LEVEL
) -> Difference:
    """Compare over the windows of two runs: batch means, with Student's t.

    Neighbouring windows share most of their targets, so they are no independent pairs. Long blocks
    of windows nearly are. With ``S_i`` the sum of ``d_w - mean(d)`` over the windows of block
    ``i`` of ``k``::

        mean(d) +- t(k - 1) sqrt(k / (k - 1) sum_i S_i^2) / n

    For blocks of equal length this is ``mean +- t(k - 1) s / sqrt(k)``, ``s`` the deviation of the
    blocks' means. It speaks of other stretches of time, not of other seeds.

    Limits: blocks should hardly correlate, and p is too small where they do. In simulations a true
    null was rejected, in place of 5 %, in 7 % of cases where windows had nothing but targets in
    common and blocks were two horizons long (11 % with blocks of one), and in 11 % where errors
    depended on two horizons more. Longer blocks help, as long as there are enough: fewer than
    `MIN_BLOCKS` have a mean, and neither interval nor p.

    Args:
        differences_W: one per window.
        blocks_W: block of every window, numbered from 0 (`time_blocks`).
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no window, or not as many blocks as windows.

    Source: batch means: Conway, Some tactical problems in digital simulation, 1963, and Schmeiser,
    Batch size effects in the analysis of simulation output, 1982. Differences of errors as a test:
    Diebold and Mariano, Comparing predictive accuracy, 1995. Few blocks of unlike variance:
    Ibragimov and Mueller, t-statistic based correlation and heterogeneity robust inference, 2010.
    """
    size = len(differences_W)
    if not size or len(blocks_W) != size:
        raise ValueError(f"expected windows, each with its block; got {size}, {len(blocks_W)}")
    values = np.asarray(differences_W, dtype=np.float64)
    mean = float(values.mean())
    sums = np.bincount(blocks_W, values - mean)
    blocks = len(sums)
    if blocks < MIN_BLOCKS:
        return Difference(mean, None, None, None, size)
    error = math.sqrt(blocks / (blocks - 1) * float(sums @ sums)) / size
    return _students(mean, error, blocks - 1, size, level)


def _students(mean: float, error: float, freedom: int, pairs: int, level: float) -> Difference:
    """Return Student's interval and p-value of a mean with its standard error."""
    if error == 0:  # no spread, no t
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, pairs)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - half, mean + half, p, pairs)
