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

RESAMPLES = 10_000
FEW_BLOCKS = 10
"""With fewer disjoint blocks than this an interval over windows is rough."""


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
    if np.ptp(values) == 0:  # no spread, no t
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, len(values))
    test: Any = stats.ttest_1samp(values, 0.0)
    interval = test.confidence_interval(level)
    return Difference(
        mean, float(interval.low), float(interval.high), float(test.pvalue), len(values)
    )


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


def over_windows(
    differences_W: NDArray[np.float64],
    block: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare over the windows of two runs: circular block bootstrap of the mean difference.

    Neighbouring windows share most of their rows, so whole blocks of consecutive windows are drawn
    with replacement, on a circle, until as many windows are drawn as there are. The interval holds
    the middle of the resampled means; p is the share of them, moved to 0, that lie at least as far
    from it as the mean does. It speaks of other stretches of time, not of other seeds.

    Args:
        differences_W: one per window, in the order of time.
        block: consecutive windows of a block.
        level: coverage of the interval, in (0, 1).
        resamples: number of resampled means.
        seed: of the drawing.

    Raises:
        ValueError: no window, or a block that is not within 1..windows.

    Source: Politis and Romano, A circular block-resampling procedure for stationary data, 1992.
    """
    size = len(differences_W)
    if not 1 <= block <= size:
        raise ValueError(f"block must be within 1..{size} (the windows), got {block}")
    values = np.asarray(differences_W, dtype=np.float64)
    blocks = -(-size // block)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values]))])
    starts = np.random.default_rng(seed).integers(0, size, (resamples, blocks))
    lengths = np.full(blocks, block)
    lengths[-1] = size - block * (blocks - 1)
    means = (sums[starts + lengths] - sums[starts]).sum(axis=1) / size
    mean = float(values.mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    further = np.count_nonzero(np.abs(means - mean) >= abs(mean))
    return Difference(mean, float(low), float(high), (1 + further) / (1 + resamples), size)
