"""Split-conformal calibration: how far the truth lay from the forecasts of validation windows.

The score of a forecast is its absolute residual, or, where a network forecasts quantiles, how far
the truth lay outside of a pair of them (negative inside): ``max(lower - y, y - upper)``, of which
the absolute residual is the case ``lower = upper``. Absolute residuals rather than signed ones:
an interval then holds its point forecast, needs half as many windows for the same level, and does
not carry a bias of the validation part on to a time in which it may have turned.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.windows import WindowBatch, Windows
from tsattn.errors import ConfigError
from tsattn.models import Forecast
from tsattn.nn.quantiles import central_pairs

RECORD_KEY = "conformal"
FINE = (*range(5, 50, 5), *range(50, 100), 99.5, 99.9)
COARSE = (50, 60, 68, 70, 75, 80, 85, 90, 95, 98, 99)
_MOST_STORED = 1 << 20
_MOST_SCORES = 1 << 27
_VALUES = 1 << 21
"""Numbers of the windows that are forecast together, 8 MiB in float32."""


def conformal_rank(windows: int, level: float) -> int:
    """Return ``ceil((n + 1) level / 100)``: which of n scores, in increasing order, to take.

    If the n windows and a new one are exchangeable, its score is at most this one with a
    probability of at least the level. Beyond n, no finite interval holds that promise.

    Args:
        windows: n.
        level: coverage in percent.

    Source: Vovk et al. 2005; Lei et al. 2018, equation 2.3, with ``1 - alpha = level / 100``.
    """
    return ceil(Fraction(repr(float(level))) * (windows + 1) / 100)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of validation windows, one for each level, horizon step and channel or series.

    Attributes:
        levels: coverage in percent, increasing: `FINE`, or `COARSE` where that has more than 2^20
            numbers.
        pairs: levels of the lower and the upper quantile that the scores belong to; (0.5, 0.5)
            stands for the point forecast.
        scores_PLHK: float32, standardised by the training's scaler, pairs x levels x horizon x
            names: the score of rank `conformal_rank`, infinite where there are fewer windows.
        windows: how many windows each name has.
    """

    levels: tuple[float, ...]
    pairs: tuple[tuple[float, float], ...]
    scores_PLHK: Tensor
    windows: tuple[int, ...]

    @property
    def finite_levels(self) -> Tensor:
        """Which levels have a score of every step, for each name: levels x names."""
        return torch.isfinite(self.scores_PLHK).all(dim=2).all(dim=0)

    def pair_for(self, level: float) -> int:
        """Return the place of the pair whose own level is nearest, the wider one of two."""
        distances = [round(abs(100 * (high - low) - level), 6) for low, high in self.pairs]
        return distances.index(min(distances))

    def scores(self, level: float, names: Sequence[str], places: Sequence[int]) -> Tensor:
        """Return the scores [H, K] of a level; one between two stored ones gets the higher's.

        Args:
            level: coverage in percent.
            names: of the channels or series, for messages.
            places: where they are among those that were calibrated.

        Raises:
            ConfigError: a level beyond those that are stored, or one that needs more windows than
                there were.
        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise ConfigError(
                f"level {level:g} is beyond those that this checkpoint holds scores of; take one "
                f"from {self.levels[0]:g} to {self.levels[-1]:g}"
            )
        stored_HK = self.scores_PLHK[self.pair_for(level), bisect_left(self.levels, level)]
        scores_HK = stored_HK[:, list(places)]
        finite_K = torch.isfinite(scores_HK).all(dim=0).tolist()
        if not all(finite_K):
            lacking = zip(names, places, finite_K, strict=True)
            few = {name: self.windows[place] for name, place, finite in lacking if not finite}
            raise ConfigError(f"level {level:g} {self._needs_more_than(few)}")
        return scores_HK.double()

    def _needs_more_than(self, few: Mapping[str, int]) -> str:
        """Say which names have too few windows for a level, and what can be done."""
        least = min(few.values())
        most = [level for level in self.levels if conformal_rank(least, level) <= least]
        allowed = f"at most {most[-1]:g} percent" if most else "no interval"
        instead = "take a lower level" if most else "forecast without them, or without levels"
        counts = f"{least}" if max(few.values()) == least else f"{least} to {max(few.values())}"
        return (
            f"needs more validation windows than the {counts} of {listed(list(few), repr)}: they "
            f"allow {allowed}; {instead}, or train with a longer validation part"
        )

    def rescaled(self, factors_K: Tensor) -> "Calibration":
        """Return the same scores in another unit, each name's multiplied by its factor."""
        scores = (self.scores_PLHK.double() * factors_K.double()).float()
        return Calibration(self.levels, self.pairs, scores, self.windows)

    def record(self) -> dict[str, Any]:
        """Return plain values and a tensor, for a checkpoint."""
        return {
            "levels": list(self.levels),
            "pairs": [list(pair) for pair in self.pairs],
            "scores": self.scores_PLHK,
            "windows": list(self.windows),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Calibration":
        """Read what `record` wrote.

        Raises:
            ValueError: sizes that do not agree, or scores that are no numbers.
            KeyError: a part is missing.
        """
        levels = tuple(float(level) for level in record["levels"])
        pairs = tuple((float(low), float(high)) for low, high in record["pairs"])
        windows = tuple(int(count) for count in record["windows"])
        scores = record["scores"].float()
        expected = (len(pairs), len(levels), len(windows))
        found = (scores.shape[0], scores.shape[1], scores.shape[3]) if scores.ndim == 4 else None
        if found != expected or not levels or not pairs:
            raise ValueError(f"conformal scores of {list(scores.shape)}, expected {expected}")
        if not bool((scores[:, 1:] >= scores[:, :-1]).all()) or bool(scores.isnan().any()):
            raise ValueError("conformal scores that do not increase with the level")
        if list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 100:
            raise ValueError("conformal levels that do not increase within (0, 100)")
        return cls(levels, pairs, scores, windows)


def summary_of(calibration: Calibration) -> dict[str, Any]:
    """Return what ``result.json`` says of a calibration."""
    finite_L = calibration.finite_levels.all(dim=1).tolist()
    levels = [level for level, finite in zip(calibration.levels, finite_L, strict=True) if finite]
    return {
        "windows": min(calibration.windows),
        "highest_level": levels[-1] if levels else None,
        "scores": "absolute residuals"
        if calibration.pairs == ((0.5, 0.5),)
        else "outside of " + ", ".join(f"{low:g} to {high:g}" for low, high in calibration.pairs),
    }


def without_intervals(calibration: Calibration, names: Sequence[str]) -> list[str]:
    """Return the names that have too few validation windows for any level."""
    has_K = calibration.finite_levels.any(dim=0)
    return [name for name, has in zip(names, has_K, strict=True) if not has]


def calibrate(
    forecast: Callable[[WindowBatch], Forecast],
    windows: Windows,
    *,
    quantiles: Sequence[float] | None = None,
    series: int = 1,
    most: int | None = None,
    device: torch.device | None = None,
) -> Calibration:
    """Forecast windows and keep the order statistics of their scores.

    Windows overlap and follow each other, so they are far from independent: the rank is exact for
    exchangeable windows, an approximation for a time series.

    Args:
        forecast: forecasts a batch, in evaluation mode.
        windows: those of the validation part. Where their scores would be more than 2^27 numbers,
            every second one, or third, and so on, is taken.
        quantiles: levels of the network's quantiles, if it has some.
        series: how many series of one channel there are; 1 for a series of any number of channels.
        most: only so many windows: the first ones, or with several series evenly spread ones.
        device: where the network is.

    Returns:
        The calibration, its names the channels, or the series where there are several.
    """
    pairs = _pairs(quantiles)
    count = len(windows) if most is None else min(most, len(windows))
    channels = windows.values_RC.shape[1]
    size = count * windows.horizon * channels * len(pairs)
    index_W = torch.arange(0, count, max(1, -(-size // _MOST_SCORES)))
    if series > 1:  # they lie one after the other
        index_W = index_W * len(windows) // count
    parts = [
        _scores(forecast, windows[part], quantiles, pairs, device)
        for part in index_W.split(_batch_size(windows, channels))
    ]
    scores_WHCP = torch.cat(parts)
    series_W = windows.series_W[index_W]
    groups = (
        [scores_WHCP[series_W == one] for one in range(series)] if series > 1 else [scores_WHCP]
    )
    names = channels if series == 1 else series
    fine = len(pairs) * len(FINE) * windows.horizon * names <= _MOST_STORED
    levels = tuple(float(level) for level in (FINE if fine else COARSE))
    stored = torch.cat([_order_statistics(group, levels) for group in groups], dim=-1)
    counts = [int((~group.isnan()).sum(0).min()) for group in groups]
    return Calibration(
        levels, pairs, stored, tuple(counts if series > 1 else [counts[0]] * channels)
    )


def _pairs(quantiles: Sequence[float] | None) -> tuple[tuple[float, float], ...]:
    found = central_pairs(quantiles) if quantiles else []
    if not quantiles or not found:
        return ((0.5, 0.5),)
    return tuple((quantiles[low], quantiles[high]) for low, high in found)


def _batch_size(windows: Windows, channels: int) -> int:
    return max(1, _VALUES // ((windows.context + windows.horizon) * channels))


def _scores(
    forecast: Callable[[WindowBatch], Forecast],
    batch: WindowBatch,
    quantiles: Sequence[float] | None,
    pairs: Sequence[tuple[float, float]],
    device: torch.device | None,
) -> Tensor:
    """Return the scores [B, H, C, P] of a batch; what is no number counts as infinite.

    Targets that were not observed have NaN for a score.
    """
    if device is not None:
        batch = WindowBatch._make(part if part is None else part.to(device) for part in batch)
    with torch.inference_mode():
        made = forecast(batch)
        parts: list[Tensor] = []
        for low, high in pairs:
            lower_BHC, upper_BHC = bounds_of(made, quantiles, (low, high))
            target_BHC = batch.future_BHC
            parts.append(torch.maximum(lower_BHC - target_BHC, target_BHC - upper_BHC).float())
        scores = torch.stack(parts, dim=-1).cpu()
    scores = torch.nan_to_num(scores, nan=torch.inf, posinf=torch.inf)
    if batch.observed_future_BHC is None:
        return scores
    return scores.masked_fill(~batch.observed_future_BHC.cpu().unsqueeze(-1), torch.nan)


def bounds_of(
    made: Forecast, quantiles: Sequence[float] | None, pair: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the two quantiles of a pair, or twice the point forecast where there are none."""
    if made.quantiles is None or quantiles is None or pair[0] == pair[1]:
        return made.mean.float(), made.mean.float()
    low, high = (list(quantiles).index(level) for level in pair)
    return made.quantiles[..., low].float(), made.quantiles[..., high].float()


def _order_statistics(scores_WHCP: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the scores [P, L, H, C] of the levels' ranks."""
    if scores_WHCP.isnan().any():
        return _observed_statistics(scores_WHCP, levels)
    windows = len(scores_WHCP)
    ranks_L = [conformal_rank(windows, level) for level in levels]
    stored = scores_WHCP.new_full((len(levels), *scores_WHCP.shape[1:]), torch.inf)
    ordered = scores_WHCP.sort(dim=0).values
    for place, rank in enumerate(ranks_L):
        if rank <= windows:
            stored[place] = ordered[rank - 1]
    return stored.permute(3, 0, 1, 2).contiguous()


def _observed_statistics(scores_WHCP: Tensor, levels: Sequence[float]) -> Tensor:
    """Return `_order_statistics` where every step and channel has a number of scores of its own."""
    count_HCP = (~scores_WHCP.isnan()).sum(0)
    ordered = scores_WHCP.sort(dim=0).values  # NaN, which nobody observed, comes last
    stored: list[Tensor] = []
    for level in levels:
        ranks_N = torch.tensor([conformal_rank(n, level) for n in range(len(ordered) + 1)])
        rank_HCP = ranks_N[count_HCP]
        place = (rank_HCP - 1).clamp(0, len(ordered) - 1).unsqueeze(0)
        found = ordered.gather(0, place)[0]
        stored.append(torch.where(rank_HCP <= count_HCP, found, torch.inf))
    return torch.stack(stored).permute(3, 0, 1, 2).contiguous()
