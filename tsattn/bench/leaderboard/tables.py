"""Tables before anybody knows whether they become Markdown or HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tsattn.bench.paired import Difference

Mark = Literal["", "best", "second"]

LABELS = {
    "patchtst": "PatchTST",
    "transformer": "Transformer",
    "dlinear": "DLinear",
    "neuralforecast_patchtst": "PatchTST of neuralforecast",
    "huggingface_patchtst": "PatchTST of Hugging Face",
    "last_value": "last value",
    "window_mean": "mean of the window",
    "seasonal_naive": "last season",
    "train_mean": "mean of the training rows",
    "identity": "Linear (identity)",
    "gelu": "GELU",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "tanh": "Tanh",
    "weather": "Weather",
    "traffic": "Traffic",
    "electricity": "Electricity",
    "illness": "Illness",
    "etth1": "ETTh1",
    "etth2": "ETTh2",
    "ettm1": "ETTm1",
    "ettm2": "ETTm2",
}
"""How models, activations and datasets are called in the paper; others keep their own names."""

FINE = 4
"""Digits where activations are compared; the paper has three."""

FLOORS = ("last_value", "seasonal_naive", "window_mean", "train_mean")
OTHERS = (*FLOORS, "dlinear", "neuralforecast_patchtst", "huggingface_patchtst")
"""What stands beside the networks, in this order."""


@dataclass(frozen=True)
class Item:
    """One cell of a table.

    Attributes:
        text: what stands there.
        sort: what it is ordered by; None where it is the text.
        mark: best and second best are shown as such.
        title: more about it, where there is room.
    """

    text: str
    sort: float | None = None
    mark: Mark = ""
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a title for every column.

    Attributes:
        columns: the titles.
        rows: as many items as there are columns in every row.
        words: how many columns at the left hold words; the others hold numbers.
        caption: what it shows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Item, ...], ...]
    words: int = 1
    caption: str = ""


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Item]], words: int = 1, caption: str = ""
) -> Table:
    """Return a table of lists."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows), words, caption)


def label(name: str) -> str:
    """Return how a model, an activation or a dataset is called in the paper."""
    return LABELS.get(name, name)


def network_label(protocol: str, model: str) -> str:
    """Return a model's name, with its protocol where that is not Table 2's."""
    return label(model) if protocol == "table2" else f"{label(model)}, protocol {protocol}"


def word(text: str) -> Item:
    """Return an item that is ordered by its text."""
    return Item(text)


def number(value: float | None, digits: int = 3) -> Item:
    """Return a number; None is an empty item."""
    return Item("") if value is None else Item(f"{value:.{digits}f}", value)


def signed(value: float | None, digits: int = 3) -> Item:
    """Return a difference with its sign, a real minus among them."""
    return Item("") if value is None else Item(sign(value, digits), value)


def sign(value: float, digits: int = 3) -> str:
    """Write a number with its sign; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def spread(
    mean: float | None,
    deviation: float | None,
    count: int | None = None,
    mark: Mark = "",
    title: str = "",
    digits: int = 3,
) -> Item:
    """Return ``mean ± deviation (number of seeds)``."""
    if mean is None:
        return Item("", title=title)
    text = f"{mean:.{digits}f}"
    if deviation is not None:
        text += f" ± {deviation:.{digits}f}"
    return Item(text + (f" ({count})" if count is not None else ""), mean, mark, title)


def interval(difference: Difference) -> str:
    """Write a difference with its interval, where it has one."""
    mean, low, high = (
        None if value is None else sign(value, FINE)
        for value in (difference.mean, difference.low, difference.high)
    )
    return f"{mean}" if low is None else f"{mean} [{low}, {high}]"


def probability(p: float | None) -> str:
    """Write a p-value with as many digits as are worth reading."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
