"""Prediction intervals of forecasts, from quantiles of the network or from validation windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.scaling import Scaler
from tsattn.errors import CheckpointError, ConfigError
from tsattn.forecast.trained import Trained
from tsattn.models import ForecastNetwork
from tsattn.nn.quantiles import central_pairs
from tsattn.training.conformal import RECORD_KEY, Calibration

Method = Literal["conformal", "quantile", "adaptive"]
METHODS = ("conformal", "quantile", "adaptive")


class Ahead(NamedTuple):
    """Standardised forecasts of windows.

    Attributes:
        mean_WHK: the point forecast, windows x horizon x names.
        quantiles_WHKQ: of networks that forecast quantiles, else None.
    """

    mean_WHK: Tensor
    quantiles_WHKQ: Tensor | None = None


class Band(NamedTuple):
    """An interval of every forecast: float64, windows x horizon x names."""

    lower_WHK: Tensor
    upper_WHK: Tensor

    def scaled(self, scale_K: Tensor, mean_K: Tensor) -> "Band":
        """Return the band in another unit."""
        return Band(self.lower_WHK * scale_K + mean_K, self.upper_WHK * scale_K + mean_K)


Bands = Mapping[float, Band]
"""Bands by their level in percent."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """What a checkpoint knows about the uncertainty of its forecasts.

    Attributes:
        quantiles: levels of the network's quantiles, or None.
        calibration: scores of validation windows, or None.
    """

    quantiles: tuple[float, ...] | None
    calibration: Calibration | None

    def method_for(self, levels: Sequence[float], asked: str | None) -> Method | None:
        """Return the method to use for levels, and none where there are none.

        Raises:
            ConfigError: as `method`, or a method although no level was asked for.
        """
        if levels:
            return self.method(asked)
        if asked is not None:
            raise ConfigError(
                f"method {asked}: it is for intervals, and none were asked for; give levels too, "
                "such as 80 and 95"
            )
        return None

    def method(self, asked: str | None) -> Method:
        """Return the method to use: the one asked for, or conformal wherever it is calibrated.

        Raises:
            ConfigError: an unknown method, or one that the checkpoint has nothing for.
        """
        if asked is not None and asked not in METHODS:
            raise ConfigError(f"unknown method {asked!r}; expected one of {', '.join(METHODS)}")
        if asked is None:
            asked = "conformal" if self.calibration is not None else "quantile"
            if self.quantiles is None and self.calibration is None:
                raise ConfigError(
                    "levels: this checkpoint holds neither quantiles nor residuals of validation "
                    "windows to make intervals from; add these with tsattn calibrate RUN, or leave "
                    "levels out"
                )
        if asked == "quantile" and self.quantiles is None:
            raise ConfigError(
                "method quantile: this network forecasts no quantiles; train one with "
                "--model.loss quantile --model.network.quantiles [0.1,0.5,0.9], or take conformal"
            )
        if asked != "quantile" and self.calibration is None:
            raise ConfigError(
                f"method {asked}: this checkpoint holds no residuals of validation windows; add "
                "them with tsattn calibrate RUN"
            )
        return asked  # pyright: ignore[reportReturnType]

    def bands(
        self,
        ahead: Ahead,
        levels: Sequence[float],
        method: Method,
        names: Sequence[str],
        known: Sequence[int | None],
    ) -> dict[float, Band]:
        """Return a band for every level.

        * ``conformal``: ``[lower - s, upper + s]`` about the point forecast, or a pair of the
          network's quantiles, with the score ``s`` of the validation windows
        * ``quantile``: the pair of the network's quantiles whose distance is the level

        A band that would leave its point forecast outside is widened to it.

        Args:
            ahead: forecasts.
            levels: coverage in percent.
            method: ``conformal`` or ``quantile``.
            names: of the channels or series.
            known: their places among those trained on.

        Raises:
            ConfigError: a level or a name that the checkpoint has nothing for.
        """
        made: dict[float, Band] = {}
        places = places_of(names, known) if method == "conformal" else ()
        for level in levels:
            if method == "quantile":
                made[level] = self._between(ahead, self._own_pair(level))
                continue
            made[level] = self.widened(ahead, level, self._scores(level, names, places))
        return made

    def _scores(self, level: float, names: Sequence[str], places: Sequence[int]) -> Tensor:
        assert self.calibration is not None
        try:
            return self.calibration.scores(level, names, places)
        except ConfigError as error:
            if self.quantiles is None:
                raise
            raise ConfigError(f"{error}; method quantile takes the network's own") from error

    def widened(self, ahead: Ahead, level: float, scores: Tensor) -> Band:
        """Return the band of a level with its scores, which broadcast to [W, H, K]."""
        assert self.calibration is not None
        pair = self.calibration.pairs[self.calibration.pair_for(level)]
        lower, upper = self._between(ahead, pair)
        mean_WHK = ahead.mean_WHK.double()
        return Band(
            torch.minimum(lower - scores, mean_WHK), torch.maximum(upper + scores, mean_WHK)
        )

    def pair_for(self, level: float) -> int:
        """Return the place of the pair of quantiles that the scores of a level belong to."""
        assert self.calibration is not None
        return self.calibration.pair_for(level)

    def between(self, ahead: Ahead, level: float) -> Band:
        """Return the pair of forecasts that the scores of a level belong to."""
        assert self.calibration is not None
        return self._between(ahead, self.calibration.pairs[self.calibration.pair_for(level)])

    def _between(self, ahead: Ahead, pair: tuple[float, float]) -> Band:
        if pair[0] == pair[1]:
            return Band(ahead.mean_WHK.double(), ahead.mean_WHK.double())
        assert ahead.quantiles_WHKQ is not None
        assert self.quantiles is not None
        low, high = (self.quantiles.index(one) for one in pair)
        quantiles = ahead.quantiles_WHKQ
        return Band(quantiles[..., low].double(), quantiles[..., high].double())

    def _own_pair(self, level: float) -> tuple[float, float]:
        levels = self.quantiles or ()
        pairs = [(levels[low], levels[high]) for low, high in central_pairs(levels)]
        for low, high in pairs:
            if abs(100 * (high - low) - level) < 1e-6:
                return low, high
        known = ", ".join(f"{100 * (high - low):g}" for low, high in pairs) or "none"
        raise ConfigError(
            f"level {level:g}: the network's quantiles {list(levels)} give intervals of {known} "
            "percent; take one of them, or method conformal"
        )


def in_original(bands: Bands, scaler: Scaler) -> dict[float, Band]:
    """Return bands in original units.

    Args:
        bands: standardised.
        scaler: mean and deviation, one row of names.
    """
    mean_K, scale_K = scaler.mean_SC[0], scaler.scale_SC[0]
    return {level: band.scaled(scale_K, mean_K) for level, band in bands.items()}


def places_of(names: Sequence[str], known: Sequence[int | None]) -> list[int]:
    """Return the places of names among those trained on.

    Raises:
        ConfigError: a new series, which no validation window holds.
    """
    new = [name for name, place in zip(names, known, strict=True) if place is None]
    if new:
        raise ConfigError(
            f"levels: {listed(new, repr)} was not trained on, so no validation "
            "window says how far forecasts of it may be wrong; forecast new series without levels"
        )
    return [place for place in known if place is not None]


def checked_levels(levels: Sequence[float] | None) -> tuple[float, ...]:
    """Return levels in increasing order; none for None.

    Raises:
        ConfigError: no level at all, or one that is no number within (0, 100), or given twice.
    """
    if levels is None:
        return ()
    try:
        given = [float(level) for level in levels]
    except (TypeError, ValueError):
        raise ConfigError(f"levels {levels!r} are no list of numbers such as [80, 95]") from None
    if not given:
        raise ConfigError("levels are empty; give some such as 80 95, or leave levels out")
    bad = [level for level in given if not 0 < level < 100]
    if bad:
        raise ConfigError(
            f"level {bad[0]:g}: expected percent of coverage between 0 and 100, both excluded"
        )
    small = [level for level in given if level < 1]
    if small:
        raise ConfigError(
            f"level {small[0]:g}: levels are percent; did you mean {100 * small[0]:g}?"
        )
    if len(set(given)) < len(given):
        raise ConfigError(f"levels {' '.join(f'{level:g}' for level in given)} name one twice")
    return tuple(sorted(given))


def intervals_of(
    record: Mapping[str, Any], network: ForecastNetwork, trained: Trained, source: str
) -> Intervals:
    """Read and check what a checkpoint's record says of uncertainty.

    Raises:
        CheckpointError: a calibration that is damaged or of another network.
    """
    found = record.get(RECORD_KEY)
    if found is None:
        return Intervals(network.quantiles, None)
    try:
        calibration = Calibration.of(found)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{source}: its calibration is damaged: {error}") from error
    expected = (trained.horizon, len(trained.names))
    known = {*(network.quantiles or ()), 0.5}
    if calibration.scores_PLHK.shape[2:] != expected or any(
        level not in known for pair in calibration.pairs for level in pair
    ):
        raise CheckpointError(
            f"{source}: its calibration is not of this network; add one with tsattn calibrate RUN "
            "--overwrite"
        )
    return Intervals(network.quantiles, calibration)
