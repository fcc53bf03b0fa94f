"""Pictures of what mixtures of experts did, as SVG. They need the extra ``plots``."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tsattn.training.routing import short_name
from tsattn.training.routing_table import Row
from tsattn.training.svg import FAINT, INK, as_svg, figure_of, percent, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_EXPERTS = (  # Okabe and Ito's, which people of every colour vision can tell apart
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#F0E442", "#7F7F7F"),
)
_LAYERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_MOST_LABELS = 16


def values_of(rows: Sequence[Row], layer: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs and values of a measure without experts."""
    found = [(r.epoch, r.value) for r in rows if (r.layer, r.measure) == (layer, measure)]
    table = np.array(found, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def loads_of(rows: Sequence[Row], layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs and the shares [experts, epochs] of a layer's load."""
    found = [row for row in rows if (row.layer, row.measure) == (layer, "load")]
    epochs = np.array(sorted({row.epoch for row in found}), dtype=float)
    shares = np.zeros((1 + max((row.expert or 0 for row in found), default=0), len(epochs)))
    for row in found:
        shares[row.expert or 0, np.searchsorted(epochs, row.epoch)] = row.value
    return epochs, shares


def draw_loads(
    rows: Sequence[Row], experts: Mapping[str, Sequence[str]], best_epoch: int | None
) -> str:
    """Draw each layer's shares over the epochs, stacked, the experts named at the right.

    Args:
        rows: the table.
        experts: names of the experts, by layer.
        best_epoch: epoch of the best checkpoint.
    """
    figure, axes = figure_of(len(experts), 2.1)
    for axis, (layer, names) in zip(axes, experts.items(), strict=True):
        epochs, shares = loads_of(rows, layer)
        left, right = epochs[0] - 0.5, epochs[-1] + 0.5
        starts = np.concatenate([[left], (epochs[1:] + epochs[:-1]) / 2])
        edges = np.ravel(np.column_stack([starts, np.append(starts[1:], right)]))
        colours = _colours(len(names))
        axis.stackplot(
            edges, 100 * shares.repeat(2, axis=1), colors=colours, edgecolor="white", linewidth=0.6
        )
        axis.set(xlim=(left, right), ylim=(0, 100), ylabel="share of the load (%)")
        axis.xaxis.set_ticks([])
        set_title(axis, short_name(layer))
        _mark_best(axis, best_epoch)
        _name_bands(axis, 100 * shares[:, -1], names)
    _epochs(axes[-1:])
    return as_svg(figure)


def _name_bands(axis: "Axes", shares: np.ndarray, names: Sequence[str]) -> None:
    """Write each expert's name and last share beside its band, moved apart where they are close."""
    every = math.ceil(len(names) / _MOST_LABELS)
    middles = (shares.cumsum() - shares / 2)[::every]
    places = _apart(middles, 100.0 / max(12, len(middles)))
    size = min(7.5, 7.5 * 14 / len(middles))
    for number, place in zip(range(0, len(names), every), places, strict=True):
        beside = {"xycoords": "axes fraction", "fontsize": size, "va": "center"}
        axis.annotate("\u25a0", (1.008, place / 100), color=_colours(len(names))[number], **beside)
        text = f"{names[number]}  {percent(shares[number] / 100)}"
        axis.annotate(text, (1.024, place / 100), color=INK, **beside)


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Return increasing places within 100, moved until each is ``gap`` from the next."""
    moved = places.copy()
    moved[0] = max(moved[0], gap / 2)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1] = min(moved[-1], 100 - gap / 2)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved


def draw_entropies(
    rows: Sequence[Row], sizes: Mapping[str, tuple[int, int]], best_epoch: int | None
) -> str:
    """Draw the entropies of the load and of the weights over the epochs.

    Args:
        rows: the table.
        sizes: number of experts and of experts of a token, by layer.
        best_epoch: epoch of the best checkpoint.
    """
    figure, axes = figure_of(1, 2.7, columns=2)
    panels = (
        ("selection_entropy", "entropy of the load", "so many equally busy experts"),
        ("weight_entropy", "entropy of a token's weights", "so many equal weights"),
    )
    for place, (axis, (measure, title, number)) in enumerate(zip(axes, panels, strict=True)):
        _lines(axis, rows, tuple(sizes), measure)
        most = max(size[place] for size in sizes.values())
        if most > 1:
            axis.axhline(math.log2(most), color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
            axis.annotate(
                f"all {most} alike: {math.log2(most):.3g} bits",
                (0.015, math.log2(most)),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2.5),
                textcoords="offset points",
                fontsize=7,
                color=INK,
            )
        axis.set(ylim=(0, 1.13 * max(math.log2(most), 0.1)), ylabel="entropy (bits)")
        set_title(axis, title)
        _mark_best(axis, best_epoch)
        count = axis.secondary_yaxis("right", functions=(_two_to, _log_two))
        count.set_ylabel(number, fontsize=8)
        count.set_yticks(_whole_numbers(most))
        count.tick_params(labelsize=7)
    _name_layers(axes[0], "lower left")
    _epochs(axes)
    return as_svg(figure)


def draw_lines(
    rows: Sequence[Row],
    layers: Sequence[str],
    panels: Mapping[str, str],
    best_epoch: int | None,
) -> str:
    """Draw shares over the epochs, a panel for each measure and a line for each layer.

    Args:
        rows: the table.
        layers: the layers.
        panels: titles of the panels, by measure.
        best_epoch: epoch of the best checkpoint.
    """
    figure, axes = figure_of(1, 2.7, columns=len(panels))
    for axis, (measure, title) in zip(axes, panels.items(), strict=True):
        _lines(axis, rows, layers, measure, scale=100)
        axis.set(ylim=(0, max(5.0, axis.get_ylim()[1])), ylabel="share (%)")
        set_title(axis, title)
        _mark_best(axis, best_epoch)
    _name_layers(axes[-1], "best")
    _epochs(axes)
    return as_svg(figure)


def _lines(
    axis: "Axes", rows: Sequence[Row], layers: Sequence[str], measure: str, scale: float = 1.0
) -> None:
    for number, layer in enumerate(layers):
        epochs, values = values_of(rows, layer, measure)
        axis.plot(
            epochs,
            scale * values,
            color=_LAYERS[number % len(_LAYERS)],
            linestyle=_DASHES[number // len(_LAYERS) % len(_DASHES)],
            linewidth=1.5,
            marker="o" if len(epochs) <= 25 else "",
            markersize=3,
            label=short_name(layer),
        )


def _name_layers(axis: "Axes", place: Literal["lower left", "best"]) -> None:
    axis.legend(fontsize=7, loc=place, facecolor="white", edgecolor="none", framealpha=0.85)


def _colours(number: int) -> list[Any]:
    if number <= len(_EXPERTS):
        return list(_EXPERTS[:number])
    from matplotlib import colormaps

    return [colormaps["turbo"](0.05 + 0.9 * i / (number - 1)) for i in range(number)]


def _whole_numbers(most: int) -> list[int]:
    numbers = [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if n < most]
    return [*(n for n in numbers if math.log2(most / n) > 0.1 * math.log2(most)), most]


def _two_to(bits: "ArrayLike") -> np.ndarray:
    return np.exp2(np.asarray(bits, dtype=float))


def _log_two(number: "ArrayLike") -> np.ndarray:
    return np.log2(np.maximum(np.asarray(number, dtype=float), 1e-9))


def _mark_best(axis: "Axes", best_epoch: int | None) -> None:
    if best_epoch is None:
        return
    axis.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    axis.annotate(
        "best",
        (best_epoch, 0.03),
        xycoords=("data", "axes fraction"),
        fontsize=6.5,
        ha="center",
        color=INK,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
    )


def _epochs(axes: Sequence["Axes"]) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        axis.set_xlabel("epoch", fontsize=8)
