"""What a comparison says: a table for people, tidy files for programs."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from tsattn.bench.compare.differences import Compared, Pairing
from tsattn.bench.compare.errors import METRICS
from tsattn.bench.compare.sides import Scored
from tsattn.bench.leaderboard.tables import probability, sign
from tsattn.bench.paired import MIN_BLOCKS, Difference
from tsattn.data.amounts import listed
from tsattn.files import replacing
from tsattn.training.datamodule import ForecastData
from tsattn.training.pictures import window_times

FILES = ("windows.csv", "channels.csv", "steps.csv", "differences.csv", "comparison.png")


def show(
    sides: Sequence[Scored], compared: Sequence[Compared], pairing: Pairing, console: Console
) -> None:
    """Print scores and differences, how they were paired, and what to keep in mind."""
    table = Table(title=f"paired over {pairing.method}", title_justify="left")
    for title in ("", "seeds", "MSE", "MAE", "MSE − first [95 %]", "p", "MAE − first [95 %]"):
        table.add_column(title, justify="right" if title else "left", overflow="fold")
    found = {one.name: one for one in compared}
    for side in sides:
        runs = pairing.runs_of(side)
        means = [sum(r.score(m) for r in runs) / len(runs) for m in METRICS]
        row = [side.name, str(len(runs)), *(f"{mean:.4f}" for mean in means)]
        if one := found.get(side.name):
            p = one.adjusted_p if one.adjusted_p is not None else one.total["mse"].p
            row += [_interval(one.total["mse"]), probability(p), _interval(one.total["mae"])]
        table.add_row(*row)
    console.print(table)
    for one in compared:
        console.print(sentence(one, sides[0].name, pairing))
    if len(compared) > 1 and any(one.adjusted_p is not None for one in compared):
        console.print("p is adjusted for the number of sides (Holm)")
    for note in pairing.notes:
        console.print(f"note: {note}", style="yellow")


def sentence(one: Compared, reference: str, pairing: Pairing) -> str:
    """Say in words what was found."""
    total = one.total["mse"]
    if math.isnan(total.mean):
        return f"{one.name} and {reference}: undecided, an error is not a finite number"
    if pairing.too_few:
        number = pairing.num_blocks
        return (
            f"{one.name} and {reference}: undecided, the {total.pairs} windows hold only {number} "
            f"independent stretch{'es' if number > 1 else ''} of time"
        )
    if pairing.scarce:
        return (
            f"{one.name} and {reference}: undecided, channels have targets in fewer than "
            f"{MIN_BLOCKS} blocks of time: {listed(pairing.scarce)}"
        )
    p = one.adjusted_p if one.adjusted_p is not None else total.p
    if p is None or p >= 0.05:
        return f"{one.name} and {reference}: undecided, no difference beyond chance"
    better = "smaller" if total.mean < 0 else "larger"
    return f"{one.name} has the {better} error than {reference}"


def write_files(
    folder: Path,
    sides: Sequence[Scored],
    compared: Sequence[Compared],
    data: ForecastData,
) -> None:
    """Write the scores by window, channel and step, and the differences, one number a line.

    Cells of what has no observed target are empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    windows = data.prepared.test
    names = data.prepared.panel.channels
    times = (window_times(data, w)[data.context] for w in range(len(windows)))
    starts = [one.isoformat() if isinstance(one, pd.Timestamp) else one for one in times]
    series = [data.prepared.panel.ids[index] for index in windows.series_W.tolist()]
    runs = [(s.name, seed, run) for s in sides for seed, run in s.errors.items()]
    _write(
        folder / "windows.csv",
        ["side", "seed", "window", "series", "first_target", *METRICS],
        (
            [side, seed, w, series[w], starts[w], *scores]
            for side, seed, run in runs
            for w, scores in enumerate(
                zip(*(run.by_window(m).tolist() for m in METRICS), strict=True)
            )
        ),
    )
    for file, title, labels, attribute in (
        ("channels.csv", "channel", names, "channels"),
        ("steps.csv", "step", range(1, data.horizon + 1), "steps"),
    ):
        _write(
            folder / file,
            ["side", "seed", title, *METRICS],
            (
                [side, seed, label, *scores]
                for side, seed, run in runs
                for label, *scores in zip(
                    labels, *(getattr(run, attribute).scores(m) for m in METRICS), strict=True
                )
            ),
        )
    columns = [
        "side",
        "reference",
        "over",
        "at",
        "score",
        "difference",
        "low",
        "high",
        "p",
        "pairs",
    ]
    _write(folder / "differences.csv", columns, _differences(sides[0].name, compared, names))


def _differences(
    reference: str, compared: Sequence[Compared], channels: Sequence[str]
) -> Iterable[list[object]]:
    for one in compared:
        for metric in METRICS:
            parts = [("all", "", one.total[metric])]
            parts += [
                ("channel", name, found)
                for name, found in zip(channels, one.channels[metric], strict=True)
            ]
            parts += [
                ("step", str(step), found) for step, found in enumerate(one.steps[metric], start=1)
            ]
            for over, at, d in parts:
                numbers = [d.mean, d.low, d.high, d.p, d.pairs]
                yield [one.name, reference, over, at, metric, *numbers]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with replacing(path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _interval(found: Difference) -> str:
    if math.isnan(found.mean):
        return ""
    if found.low is None or found.high is None:
        return sign(found.mean, 4)
    return f"{sign(found.mean, 4)} [{sign(found.low, 4)}, {sign(found.high, 4)}]"
