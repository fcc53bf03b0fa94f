"""Quantiles that cannot cross: a median, and distances away from it that are never negative."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class QuantileLevels:
    """The quantiles that a network forecasts, and how its outputs become them.

    Of every step a network puts out one number per quantile: the median itself, and for each other
    quantile one number ``z`` for its distance ``softplus(z) >= 0`` from its neighbour on the
    median's side. Quantile k above the median is ``median + softplus(z_1) + ... + softplus(z_k)``,
    below it likewise with minus, so for any weights they are in order.

    Attributes:
        levels: increasing, within (0, 1), the median 0.5 among them.

    Source: Gasthaus et al. 2019 and Park et al. 2022 build monotone quantiles from such increments.
    """

    levels: tuple[float, ...]

    @classmethod
    def of(cls, quantiles: Sequence[float] | None) -> "QuantileLevels | None":
        """Check what a network was given; None stands for a point forecast.

        Raises:
            ValueError: no levels, one outside (0, 1), not increasing, or without the median.
        """
        if quantiles is None:
            return None
        levels = tuple(float(level) for level in quantiles)
        inside = all(0 < level < 1 for level in levels)
        if not inside or not all(low < high for low, high in pairwise(levels)):
            raise ValueError(
                f"quantiles must increase strictly within (0, 1), got {list(levels)}; for example "
                "[0.1, 0.5, 0.9]"
            )
        if 0.5 not in levels:
            raise ValueError(
                f"quantiles {list(levels)} lack 0.5: the median is the point forecast; add it"
            )
        return cls(levels)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def median(self) -> int:
        """Place of the median."""
        return self.levels.index(0.5)

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the median [...] and the distances [..., Q - 1] of a network's outputs [..., Q].

        Distances are in the order of the levels, each that of a level to its neighbour.
        """
        place = self.median
        others = torch.cat([outputs[..., :place], outputs[..., place + 1 :]], dim=-1)
        return outputs[..., place], F.softplus(others)

    def join(self, median: Tensor, distances: Tensor) -> Tensor:
        """Return the quantiles [..., Q] of a median [...] and distances [..., Q - 1].

        One addition after the other: rounding then keeps the order, on every device.
        """
        place = self.median
        below, above = [median], [median]
        for gap in distances[..., :place].flip(-1).unbind(-1):
            below.append(below[-1] - gap)
        for gap in distances[..., place:].unbind(-1):
            above.append(above[-1] + gap)
        return torch.stack([*reversed(below), *above[1:]], dim=-1)


def central_pairs(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Return the places of the quantiles ``q`` and ``1 - q``, from the widest pair inwards."""
    places = {round(level, 9): place for place, level in enumerate(levels)}
    lower = [level for level in sorted(places) if level < 0.5 and round(1 - level, 9) in places]
    return [(places[level], places[round(1 - level, 9)]) for level in lower]
