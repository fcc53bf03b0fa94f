"""``routing.csv`` of a run: what its mixtures did, epoch by epoch, one number a row."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tsattn.files import write_atomically

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "load": "share of the slots of all validation tokens that the expert got",
        "selection_entropy": "entropy of the load, in bits",
        "weight_entropy": "mean entropy of the validation tokens' weights, in bits",
        "change_rate": "share of the watched validation tokens' assignments that are not those of "
        "the epoch before",
        "changed_tokens": "share of the watched validation tokens of which an expert changed",
        "dropped": "share of the training slots that were dropped for want of capacity",
        "router_agreement": "share of the competition's winners that the router picks too, over "
        "the training steps that competed",
    }
)
"""Every measure of the table, and what it means."""


class Row(NamedTuple):
    """One number.

    Attributes:
        epoch: from 1.
        layer: name of the mixture in the network.
        measure: one of `MEASURES`.
        expert: number of the expert from 0, for ``load`` alone.
        value: the number.
    """

    epoch: int
    layer: str
    measure: str
    expert: int | None
    value: float


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a table; of a file that is not there, none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                epoch=int(row["epoch"]),
                layer=row["layer"],
                measure=row["measure"],
                expert=int(row["expert"]) if row["expert"] else None,
                value=float(row["value"]),
            )
            for row in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a table by these rows, in one step."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def final_values(rows: Iterable[Row], *measures: str) -> dict[str, dict[str, float]]:
    """Return the last value of measures without experts, by layer and measure."""
    final: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.measure in measures:
            final.setdefault(row.layer, {})[row.measure] = row.value
    return final
