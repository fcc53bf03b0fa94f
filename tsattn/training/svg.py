"""Figures of one look that become SVG. They need the extra ``plots``."""

import io
from typing import TYPE_CHECKING

import numpy as np

from tsattn.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.6
INK, FAINT = "#333333", "#999999"


def figure_of(rows: int, height: float, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """Return a figure of so many rows of panels, each ``height`` inches high, and its panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "the page needs matplotlib; install it with: pip install 'tsattn[plots]'"
        ) from error
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def as_svg(figure: "Figure") -> str:
    """Return the picture, byte for byte the same for the same numbers."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "tsattn"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def set_title(axis: "Axes", title: str) -> None:
    """Set the title of a panel, and the sizes of its labels."""
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.set_ylabel(axis.get_ylabel(), fontsize=8)
    axis.tick_params(labelsize=7)


def percent(share: float) -> str:
    """Write a share as whole percent, and what is less than one but not nothing as such."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
