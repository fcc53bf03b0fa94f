"""Figures that others published, quoted beside ours and never in the same column."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DATASETS = ("weather", "traffic", "electricity", "illness", "etth1", "etth2", "ettm1", "ettm2")
MODELS = ("patchtst", "transformer")
ACTIVATIONS = ("identity", "gelu", "relu", "sigmoid", "silu", "tanh")
"""Table 2 in its own order; its "Linear" is identity."""

TABLE2 = "table2"
REPEATED = (TABLE2, "table2_b")
"""Protocols whose runs repeat cells of Table 2."""

SOURCES = {
    TABLE2: "Table 2 of the active-attention paper, mean of five runs",
    "patchtst_paper": "the PatchTST paper, 42 patches",
    "fits_rerun": "a rerun of the published code that scores every window (FITS)",
}


@dataclass(frozen=True)
class Quoted:
    """A published figure.

    Attributes:
        source: a key of `SOURCES`.
        model: ``patchtst`` or ``transformer``.
        value_activation: the value activation.
        dataset: file name of our recipe for the dataset.
        test_mse: test MSE on the standardised scale.
        test_mae: test MAE, where it was published.
    """

    source: str
    model: str
    value_activation: str
    dataset: str
    test_mse: float
    test_mae: float | None


@cache
def quoted() -> tuple[Quoted, ...]:
    """Return every published figure of ``published.csv``."""
    text = files("tsattn.bench.leaderboard").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Quoted(
            line["source"],
            line["model"],
            line["value_activation"],
            line["dataset"],
            float(line["test_mse"]),
            float(line["test_mae"]) if line["test_mae"] else None,
        )
        for line in csv.DictReader(text.splitlines())
    )


def horizon_of(dataset: str) -> int:
    """Return the horizon of Table 2 on a dataset."""
    return 36 if dataset == "illness" else 192


def table2_mse(model: str, activation: str, dataset: str) -> float | None:
    """Return Table 2's test MSE, or None where the table has no such cell."""
    for figure in quoted():
        place = (figure.source, figure.model, figure.value_activation, figure.dataset)
        if place == (TABLE2, model, activation, dataset):
            return figure.test_mse
    return None
