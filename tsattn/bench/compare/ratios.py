"""Scores as sums of errors over counts of targets, and how their differences are tested.

``W`` are windows, ``P`` parts of them: channels or steps.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsattn.bench.paired import MIN_BLOCKS, Difference, over_seeds, over_windows

Array = NDArray[np.float64]
Counts = NDArray[np.int32]
Blocks = NDArray[np.intp]

UNKNOWN = Difference(math.nan, None, None, None, 0)
"""The difference of what has no score: no target was observed, or a forecast is no number."""


def ratio(sums: Array, counts: NDArray[Any]) -> Array:
    """Return sums over counts, NaN where the count is 0."""
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def window_values(sums: Array, counts: NDArray[Any]) -> Array:
    """Return one value per window, whose mean over the windows is the ratio of the sums.

    With the sum ``d_w`` of window ``w`` over its ``n_w`` observed targets, and means over windows::

        D = sum_w d_w / sum_w n_w,    z_w = D + (d_w - D n_w) / mean(n)

    What ``z`` spreads is what D spreads, to first order; where all counts are the same, ``z_w`` is
    ``d_w / n_w``. A part without any target is NaN.

    Args:
        sums: of every window, or of every window and part.
        counts: likewise.

    Source: Cochran, Sampling Techniques, 1977, chapter 6: the linearised ratio estimate.
    """
    mean = ratio(sums.sum(axis=0, keepdims=True), counts.sum(axis=0, keepdims=True))
    return mean + ratio(sums - mean * counts, counts.mean(axis=0, keepdims=True))


def part_over_windows(sums_W: Array, counts_W: Counts, blocks_W: Blocks) -> Difference:
    """Compare one part over the windows and blocks in which it has targets.

    Args:
        sums_W: difference of the errors' sums.
        counts_W: observed targets, the same for both runs.
        blocks_W: block of every window that has any target.
    """
    seen_W = counts_W > 0
    if not seen_W.any() or not np.isfinite(sums_W).all():
        return UNKNOWN
    _, blocks_V = np.unique(blocks_W[seen_W], return_inverse=True)
    return over_windows(window_values(sums_W[seen_W], counts_W[seen_W]), blocks_V)


def all_over_windows(sums_WC: Array, counts_WC: Counts, blocks_W: Blocks) -> Difference:
    """Compare the mean over observed channels, over the windows that have any target.

    There is no interval where a channel has targets in fewer than `MIN_BLOCKS` blocks: it counts as
    much as any other, and nobody knows how far to trust it.

    Args:
        sums_WC: difference of the errors' sums.
        counts_WC: observed targets, the same for both runs.
        blocks_W: block of every window, negative for those without any target.
    """
    kept_W, seen_C = counts_WC.sum(axis=1) > 0, counts_WC.sum(axis=0) > 0
    if not kept_W.any() or not np.isfinite(sums_WC).all():
        return UNKNOWN
    values_WC = window_values(sums_WC[kept_W], counts_WC[kept_W])
    found = over_windows(values_WC[:, seen_C].mean(axis=1), blocks_W[kept_W])
    if (blocks_with_targets(counts_WC, blocks_W)[seen_C] < MIN_BLOCKS).any():
        return Difference(found.mean, None, None, None, found.pairs)
    return found


def blocks_with_targets(counts_WP: Counts, blocks_W: Blocks) -> NDArray[np.intp]:
    """Return in how many blocks every part has targets, [P]."""
    blocks = range(int(blocks_W.max()) + 1)
    return np.sum([counts_WP[blocks_W == block].any(axis=0) for block in blocks], axis=0)


def part_over_seeds(differences: Sequence[float]) -> Difference:
    """Compare scores over seeds, given their differences."""
    return over_seeds(differences) if np.isfinite(differences).all() else UNKNOWN
