"""Pictures of the page, as places in a drawing; the template turns them into SVG.

Numbers are rounded to a tenth of a pixel, so that a picture is the same text on every machine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsattn.bench.leaderboard.cells import Cell
from tsattn.bench.leaderboard.claims import Comparison
from tsattn.bench.leaderboard.tables import interval, label, sign
from tsattn.bench.paired import over_seeds

LINE = 26.0
LEFT, WIDTH, TOP = 120.0, 430.0, 8.0
LABEL_LINE, LETTER = 14.0, 6.0
COLOURS = {
    "identity": "#555555",
    "gelu": "#e69f00",
    "relu": "#56b4e9",
    "sigmoid": "#009e73",
    "silu": "#cc79a7",
    "tanh": "#d55e00",
}
"""Okabe and Ito's colours, which people who see few of them tell apart."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A dashed line through all rows.

    Attributes:
        at: where it stands.
        text: its label.
        middle: the middle of the label, which stays within the picture.
        level: on which line of text below the axis, so that labels do not cover each other.
    """

    at: float
    text: str
    middle: float
    level: int


@dataclass(frozen=True)
class DotRow:
    """One line of a dot plot, in pixels; None where there is nothing to draw.

    Attributes:
        name: what the line is about.
        y: its height.
        colour: of the interval and the mean.
        dots: single seeds, each with what it is.
        mean: the mean.
        low: left end of the interval, cut at the border.
        high: right end of the interval, cut at the border.
        other: the paper's figure.
        title: the numbers.
    """

    name: str
    y: float
    colour: str
    dots: tuple[Tick, ...]
    mean: float | None
    low: float | None
    high: float | None
    other: float | None
    title: str


@dataclass(frozen=True)
class DotPlot:
    """A dot plot: a line for each activation, one axis for all of them."""

    title: str
    axis: str
    height: float
    rows: tuple[DotRow, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    left: float = LEFT
    right: float = LEFT + WIDTH

    @property
    def bottom(self) -> float:
        """Where the lines of text below the axis end."""
        levels = max((one.level + 1 for one in self.lines), default=0)
        return self.height + LABEL_LINE * (1 + levels)


def scores_plot(
    title: str,
    cells: Mapping[str, Cell],
    papers: Mapping[str, float | None],
    floors: Mapping[str, float],
) -> DotPlot:
    """Draw every seed, the mean with its 95 % interval, and the paper's figure."""
    seeds = {name: cell.scores() for name, cell in cells.items() if cell.rows}
    values = [mse for scores in seeds.values() for mse in scores.values()]
    axis = _Axis([*values, *(papers[n] or values[0] for n in seeds)])
    rows: list[DotRow] = []
    for place, (name, scores) in enumerate(seeds.items()):
        found = over_seeds(list(scores.values()))
        spread = "" if found.low is None else f", mean within [{found.low:.3f}, {found.high:.3f}]"
        rows.append(
            DotRow(
                name=label(name),
                y=TOP + LINE * (place + 0.5),
                colour=COLOURS[name],
                dots=tuple(
                    Tick(axis.at(mse), f"seed {seed}: {mse:.4f}") for seed, mse in scores.items()
                ),
                mean=axis.at(found.mean),
                low=axis.cut(found.low),
                high=axis.cut(found.high),
                other=axis.maybe(papers[name]),
                title=f"{label(name)}: {found.mean:.3f} over {found.pairs} seeds{spread}",
            )
        )
    inside = {name: mse for name, mse in floors.items() if axis.holds(mse)}
    ticks = [Tick(axis.at(mse), f"{label(name)} {mse:.3f}") for name, mse in inside.items()]
    height = TOP + LINE * len(rows)
    return DotPlot(title, "test MSE", height, tuple(rows), axis.ticks(), staggered(ticks))


def differences_plot(title: str, comparisons: Sequence[Comparison]) -> DotPlot | None:
    """Draw the paired differences with their intervals, and the paper's; None without any."""
    if not comparisons:
        return None
    values = [c.difference.mean for c in comparisons]
    known = [c.published for c in comparisons if c.published is not None]
    # an interval of two seeds is wide beyond reading: it may be cut
    reach = 4 * max(map(abs, [*values, *known]))
    ends = [end for c in comparisons for end in (c.difference.low, c.difference.high)]
    shown = [max(-reach, min(reach, end)) for end in ends if end is not None]
    axis = _Axis([0.0, *values, *known, *shown])
    rows = tuple(
        DotRow(
            name=label(c.activation),
            y=TOP + LINE * (place + 0.5),
            colour=COLOURS[c.activation],
            dots=(),
            mean=axis.at(c.difference.mean),
            low=axis.cut(c.difference.low),
            high=axis.cut(c.difference.high),
            other=axis.maybe(c.published),
            title=f"{label(c.activation)} − identity: {interval(c.difference)}",
        )
        for place, c in enumerate(comparisons)
    )
    lines = staggered([Tick(axis.at(0.0), "identity")])
    height = TOP + LINE * len(rows)
    ticks = axis.ticks(signed=True)
    return DotPlot(title, "test MSE − identity's", height, rows, ticks, lines)


def staggered(ticks: Sequence[Tick]) -> tuple[Line, ...]:
    """Return lines whose labels lie beside or below each other."""
    ends: list[float] = []  # of the last label on each level
    lines: list[Line] = []
    for tick in sorted(ticks, key=lambda tick: tick.at):
        half = LETTER * len(tick.text) / 2
        middle = min(max(tick.at, half), LEFT + WIDTH + 20 - half)
        free = (level for level, end in enumerate(ends) if end + LETTER < middle - half)
        level = next(free, len(ends))
        ends[level : level + 1] = [middle + half]
        lines.append(Line(tick.at, tick.text, round(middle, 1), level))
    return tuple(lines)


class _Axis:
    """From values to pixels."""

    def __init__(self, values: Sequence[float], left: float = LEFT, width: float = WIDTH) -> None:
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        self.low, self.high = low - margin, high + margin
        self.left, self.width = left, width

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def at(self, value: float) -> float:
        return round(self.left + self.width * (value - self.low) / (self.high - self.low), 1)

    def cut(self, value: float | None) -> float | None:
        return None if value is None else self.at(min(self.high, max(self.low, value)))

    def maybe(self, value: float | None) -> float | None:
        return None if value is None or not self.holds(value) else self.at(value)

    def ticks(self, *, signed: bool = False) -> tuple[Tick, ...]:
        return tuple(
            Tick(self.at(value), sign(value, digits) if signed else f"{value:.{digits}f}")
            for value, digits in round_values(self.low, self.high)
        )


def round_values(low: float, high: float, most: int = 6) -> list[tuple[float, int]]:
    """Return round numbers within a range, at most so many, each with the decimals it needs."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(place * step, digits) for place in range(first, last + 1)]
