"""Rows that were never run, with numbers that can be followed by hand."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.test_rows import NO_SCORES, OK
from tsattn.bench.leaderboard.published import horizon_of
from tsattn.bench.rows import COLUMNS, Row

FIXED: dict[str, Any] = {
    "commit": "0123456789abcdef0123", "device": "cpu: made up", "peak_mib": 600.0,
    "wall_seconds": 90.0,
}  # fmt: skip
ILLNESS = {
    "identity": {2021: 1.50, 2022: 1.40, 2023: 1.30},
    "gelu": {2021: 1.60, 2022: 1.40, 2023: 1.32},
    "tanh": {2021: 1.40, 2022: 1.31, 2023: 1.20},
}


def row(**changes: Any) -> Row:
    """Return a finished row of PatchTST on Illness, changed."""
    given = OK | FIXED | changes
    given["horizon"] = changes.get("horizon", horizon_of(given["dataset"]))
    if "test_mse" in changes:
        given.setdefault("test_mae", 0.5)
        given["test_mse_as_published"] = 0.8 * changes["test_mse"]
    return Row(**given)


def failed(**changes: Any) -> Row:
    """Return a row of a run that failed."""
    lost: dict[str, Any] = {"status": "failed", "error": "loss | NaN `x`", **NO_SCORES}
    return Row(**(OK | FIXED | lost | changes))


def illness() -> list[Row]:
    """Return three activations over three seeds."""
    return [
        row(value_activation=name, seed=seed, test_mse=mse)
        for name, scores in ILLNESS.items()
        for seed, mse in scores.items()
    ]


def example() -> list[Row]:
    """Return rows of everything that a leaderboard shows."""
    more = {"value_activation": "", "seed": 0, "config_hash": "a" * 12, "checkpoint_rule": ""}
    return [
        *illness(),
        failed(value_activation="silu", seed=2021),
        row(dataset="etth1", value_activation="identity", test_mse=0.42),
        row(dataset="etth1", value_activation="tanh", test_mse=0.41),
        row(model="transformer", protocol="table2_b", test_mse=4.0, wall_seconds=4000.0),
        row(model="last_value", test_mse=7.7, **more),
        row(model="dlinear", test_mse=2.0, **(more | {"seed": 2021})),
        row(value_activation="relu", test_mse=0.1, config_hash="f" * 12),
    ]


def write(results: Path, rows: list[Row]) -> Path:
    """Add rows to the files of their models, and return the folder."""
    results.mkdir(exist_ok=True)
    for model in {one.model for one in rows}:
        file = results / f"{model}.csv"
        begun = file.is_file()
        with file.open("a", newline="", encoding="utf-8") as text:
            lines = csv.writer(text, lineterminator="\n")
            if not begun:
                lines.writerow(COLUMNS)
            # floats are written in full, None as nothing
            lines.writerows(asdict(one).values() for one in rows if one.model == model)  # pyright: ignore
    return results
