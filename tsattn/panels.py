"""Pictures of small panels, all of one look. They need the extra ``plots``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsattn.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8
"""Panels of one picture, at the most."""

PAST, FORECAST = "#333333", "#c8401e"


def require_pictures() -> None:
    """Refuse to go on where no picture can be drawn.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib; install it with: pip install 'tsattn[plots]'"
        ) from error


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw text as it is: a column ``price_$_per_$`` is a name and no formula.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    require_pictures()
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):
        yield


def panels_of(count: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure of so many panels, in two columns, and its panels.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    require_pictures()
    from matplotlib.figure import Figure

    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(5.2 * columns, 1.9 * rows + 0.5), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes


def title(axis: "Axes", text: str, along: str | None = None) -> None:
    """Set the title of a panel, what lies along it, and the size of its labels."""
    axis.set_title(text, fontsize=9, loc="left")
    axis.tick_params(labelsize=7)
    if along is not None:
        axis.set_xlabel(along, fontsize=8)


def along_time(axis: "Axes", times: np.ndarray) -> None:
    """Label the axis of times briefly; steps that are counted stay numbers."""
    from matplotlib.dates import ConciseDateFormatter

    if times.dtype.kind == "M":
        axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    for one in (axis.xaxis, axis.yaxis):
        one.get_offset_text().set_fontsize(7)


def on_axis(times: pd.Index) -> np.ndarray:
    """Return times as pictures show them: by the clock on the wall, or as counted steps."""
    if isinstance(times, pd.DatetimeIndex):
        times = times.tz_localize(None)
    return times.to_numpy()


def say_how_many(figure: "Figure", names: int) -> None:
    """Write above a picture how many of the channels or series it shows, unless it is all."""
    if names > MOST:
        figure.suptitle(f"the last {MOST} of {names}", fontsize=8, x=0.01, ha="left")
