"""Adaptive conformal intervals: the level is corrected as truth arrives, window by window."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from tsattn.forecast.intervals import Ahead, Band, Intervals, places_of

GAMMA = 0.02
POOL = 100


def adaptive_bands(
    intervals: Intervals,
    ahead: Ahead,
    truth_WHK: Tensor,
    step: int,
    levels: Sequence[float],
    names: Sequence[str],
    known: Sequence[int | None],
    gamma: float = GAMMA,
) -> dict[float, Band]:
    """Return bands of windows that follow each other, each made of what was known at its cutoff.

    For each horizon step and name, ``alpha`` begins at ``1 - level / 100`` and after every window
    whose truth has become known changes by ``gamma (1 - level / 100 - err)``, where ``err`` is 1 if
    the truth lay outside of that window's band. A band takes the score of rank
    ``ceil((m + 1)(1 - alpha))`` among m: at first those of the validation windows (every whole
    percent of them), of which each score that becomes known replaces the next. The rank ends at m,
    where the theory would take an infinite band.

    Horizon step h of a window is known at the cutoff ``h`` rows later, so its error counts from the
    window on that begins at least ``h`` rows after it.

    Args:
        intervals: of the checkpoint, calibrated.
        ahead: forecasts, windows in order of time.
        truth_WHK: the truth, standardised.
        step: rows between two windows.
        levels: coverage in percent.
        names: of the channels or series.
        known: their places among those trained on.
        gamma: how fast the level follows.

    Source: Gibbs and Candes 2021, "Adaptive conformal inference under distribution shift", equation
    2; the scores' sliding window as in their section 2.2. Departures: the delay, the largest rank.
    """
    places = places_of(names, known)
    target_WHK = truth_WHK.double()
    by_pair: dict[int, list[float]] = {}
    for level in levels:
        by_pair.setdefault(intervals.pair_for(level), []).append(level)
    bands: dict[float, Band] = {}
    for together in by_pair.values():
        pair = intervals.between(ahead, together[0])
        scores_WHK = torch.maximum(pair.lower_WHK - target_WHK, target_WHK - pair.upper_WHK)
        pool_MHK = _validation_pool(intervals, together, names, places)
        alphas_L = torch.tensor([1 - level / 100 for level in together], dtype=torch.float64)
        outside_WHK = _outside(pair, ahead.mean_WHK.double(), target_WHK)
        taken_LWHK = _taken(scores_WHK, pool_MHK, alphas_L, step, gamma, outside_WHK)
        for level, taken_WHK in zip(together, taken_LWHK, strict=True):
            bands[level] = intervals.widened(ahead, level, taken_WHK)
    return bands


def _validation_pool(
    intervals: Intervals, levels: Sequence[float], names: Sequence[str], places: Sequence[int]
) -> Tensor:
    """Return [M, H, K] scores of the validation windows: every whole percent of them."""
    calibration = intervals.calibration
    assert calibration is not None
    for level in levels:
        calibration.scores(level, names, places)  # refuses what has too few windows
    stored_LHK = calibration.scores_PLHK[calibration.pair_for(levels[0])][
        :, :, list(places)
    ].double()
    finite = [place for place, one in enumerate(stored_LHK) if bool(torch.isfinite(one).all())]
    highest = calibration.levels[finite[-1]]
    percents = [percent for percent in range(1, POOL) if percent <= highest]
    rows = [
        next(place for place in finite if calibration.levels[place] >= percent)
        for percent in percents
    ]
    spread = sorted(range(len(rows)), key=lambda row: row * 37 % POOL)  # old scores leave evenly
    return stored_LHK[[rows[row] for row in spread]]


def _outside(pair: Band, mean_WHK: Tensor, target_WHK: Tensor) -> Tensor:
    """Return the score up to which the truth lies outside of the band that is shown.

    The band is widened to its point forecast, so a truth between the two is inside at any score.
    """
    nowhere = torch.full_like(target_WHK, -torch.inf)
    below_WHK = torch.where(target_WHK < mean_WHK, pair.lower_WHK - target_WHK, nowhere)
    above_WHK = torch.where(target_WHK > mean_WHK, target_WHK - pair.upper_WHK, nowhere)
    return torch.maximum(below_WHK, above_WHK)


def _taken(
    scores_WHK: Tensor,
    pool_MHK: Tensor,
    alphas_L: Tensor,
    step: int,
    gamma: float,
    outside_WHK: Tensor | None = None,
) -> Tensor:
    """Return the scores [L, W, H, K] that the bands of the levels and windows are made of.

    A band missed the truth where its score is below ``outside_WHK``, by default the truth's own.
    """
    outside_WHK = scores_WHK if outside_WHK is None else outside_WHK
    windows, horizon, names = scores_WHK.shape
    size = len(pool_MHK)
    pool_HKM = pool_MHK.permute(1, 2, 0).contiguous()
    aims_L11 = alphas_L[:, None, None]
    alpha_LHK = aims_L11.repeat(1, horizon, names)
    taken_LWHK = scores_WHK.new_empty(len(alphas_L), windows, horizon, names)
    # a window's step h, from 1, is known at the cutoff of the window this many further on
    delay_H = torch.tensor([ceil(h / step) for h in range(1, horizon + 1)])
    every_h = torch.arange(horizon)
    for window in range(windows):
        ripe_H = every_h[window >= delay_H]
        if len(ripe_H):
            past = window - delay_H[ripe_H]
            news_HK = scores_WHK[past, ripe_H]
            known_HK = ~news_HK.isnan()  # truth that was not observed teaches nothing
            missed_LHK = (outside_WHK[past, ripe_H] > taken_LWHK[:, past, ripe_H]).double()
            alpha_LHK[:, ripe_H] += gamma * (aims_L11 - missed_LHK) * known_HK
            old_HK = pool_HKM[ripe_H, :, past % size]
            pool_HKM[ripe_H, :, past % size] = torch.where(known_HK, news_HK, old_HK)
        rank_LHK = ((size + 1) * (1 - alpha_LHK)).sub(1e-9).ceil().clamp(1, size).long()
        ordered_HKM = pool_HKM.sort(dim=-1).values
        taken_HKL = ordered_HKM.gather(-1, (rank_LHK - 1).permute(1, 2, 0))
        taken_LWHK[:, window] = taken_HKL.permute(2, 0, 1)
    return taken_LWHK
