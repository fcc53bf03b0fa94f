"""Maps of whom each expert serves, as SVG. They need the extra ``plots``."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tsattn.panels import plain_text
from tsattn.training.routing import short_name
from tsattn.training.svg import as_svg, figure_of, percent, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SCALE = 5.0
"""Percentage points at which colours are full, at the least: what is weak shall look weak."""

_MOST_LABELS = 32


@plain_text()
def draw_served(
    counts: Mapping[str, Tensor],
    experts: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    name: str,
) -> str:
    """Draw by how much each expert's share departs from its mean share, as a map for each layer.

    Args:
        counts: slots [values, experts], by layer.
        experts: names of the experts, by layer.
        labels: the values.
        name: what the values are.
    """
    maps = {layer: departures(counts_VE) for layer, counts_VE in counts.items()}
    shown = [value for points, _ in maps.values() for value in np.abs(points[~np.isnan(points)])]
    most = max(LEAST_SCALE, *shown)
    rows = max(len(names) for names in experts.values())
    figure, axes = figure_of(len(maps), 0.75 + 0.17 * rows)
    for axis, (layer, (points_EV, mean_E)) in zip(axes, maps.items(), strict=True):
        picture = axis.imshow(
            points_EV, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
        )
        means = [f"{n}  {percent(m)}" for n, m in zip(experts[layer], mean_E, strict=True)]
        every = max(1, math.ceil(len(means) / _MOST_LABELS))
        axis.set_yticks(range(0, len(means), every), means[::every], fontsize=7)
        axis.set_xticks([])
        axis.tick_params(length=0)
        set_title(axis, short_name(layer))
        axis.set_facecolor("#dddddd")
        bar = figure.colorbar(picture, ax=axis, pad=0.012, fraction=0.03, aspect=12)
        bar.set_label("points from\nits mean share", fontsize=7)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
        for side in axis.spines.values():
            side.set_visible(False)
    _value_ticks(axes[-1], labels)
    axes[-1].set_xlabel(name, fontsize=8)
    return as_svg(figure)


def departures(counts_VE: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the experts' shares by value less their mean shares, in points, and the mean shares.

    Args:
        counts_VE: slots of each expert by value.

    Returns:
        Percentage points [experts, values], NaN for values that no token has, and shares [experts].
    """
    counts = counts_VE.double().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    means = counts.sum(axis=0) / max(1.0, counts.sum())
    return 100 * (shares - means).T, means


def _value_ticks(axis: "Axes", labels: Sequence[str]) -> None:
    width = max(len(label) for label in labels)
    room = max(1, int(110 / (width + 1.5)))
    every = math.ceil(len(labels) / room)
    tilted = every > 1 and not labels[0].isdigit() and len(labels) <= 3 * room
    step = 1 if tilted else every
    axis.set_xticks(
        range(0, len(labels), step),
        labels[::step],
        fontsize=7,
        rotation=45 if tilted else 0,
        ha="right" if tilted else "center",
    )
    axis.tick_params(length=0)
