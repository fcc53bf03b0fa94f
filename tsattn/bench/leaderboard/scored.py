"""Which rows were scored on the same targets, so that their figures may stand side by side."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from tsattn.bench.rows import Row
from tsattn.data.catalog import find_by_sha256


class Scored(NamedTuple):
    """What a test was scored on; models that look further back have it too.

    Attributes:
        data: name of the dataset, or the hash of a file that the catalog does not have.
        targets: first row and end of what is forecast, in each series.
        horizon: steps of each forecast.
        windows: how many were scored.
    """

    data: str
    targets: tuple[tuple[int, int], ...]
    horizon: int
    windows: int


def scored(row: Row) -> Scored:
    """Return what a finished row was scored on."""
    known = find_by_sha256(row.data_sha256)
    series = [part.split(":") for part in row.test_rows.split(";") if part]
    return Scored(
        known.name if known else row.data_sha256,
        tuple((int(start) + (row.context or 0), int(end)) for start, end in series),
        row.horizon or 0,
        row.test_windows or 0,
    )


def of_the_same_windows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that may be compared, in their order.

    Of a protocol and dataset these are the finished rows of what most of them were scored on, of
    several with as many the newest, and all failed ones.
    """
    rows = list(rows)
    finished = [row for row in rows if row.status == "ok"]
    counts = Counter((row.protocol, row.dataset, scored(row)) for row in finished)
    newest: dict[tuple[str, str, Scored], str] = {}
    for row in finished:
        place = (row.protocol, row.dataset, scored(row))
        newest[place] = max(newest.get(place, ""), row.finished)
    chosen: dict[tuple[str, str], Scored] = {}
    for place in sorted(counts, key=lambda p: (counts[p], newest[p], p)):
        chosen[place[:2]] = place[2]
    return [
        row
        for row in rows
        if row.status != "ok" or chosen[row.protocol, row.dataset] == scored(row)
    ]
