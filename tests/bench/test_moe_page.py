"""The tables of docs/moe.md are those of the committed results; run as a script, it prints them."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy import stats

from tsattn.bench.rows import Row, read_rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "moe"
PROTOCOLS = ("moe", "moe_12_epochs")
GATES = {"linear": "linear", "polynomial": "quadratic polynomial", "monomial": "quadratic monomial"}
GATES |= {"compete": "linear, CompeteSMoE"}
Scores = dict[int, float]  # by seed


def table(protocol: str) -> str:
    """Return the table of one protocol in Markdown."""
    rows = [row for file in sorted(RESULTS.glob("*.csv")) for row in read_rows(file)]
    rows = [row for row in rows if (row.protocol, row.status) == (protocol, "ok")]
    by_model = {row.model: [r for r in rows if r.model == row.model] for row in rows}
    routing = _routing(protocol)
    dense = _by_seed(by_model["dense"])
    titles = ["gate", "experts", "parameters", "test MSE", "test MAE", "minus dense"]
    titles += ["minus linear", "change rate", "selection entropy"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for model in ("dense", *(f"{gate}_{number}" for number in (4, 8) for gate in GATES)):
        found = by_model[model]
        scores = _by_seed(found)
        gate, _, number = model.partition("_")
        linear = _by_seed(by_model.get(f"linear_{number}", []))
        cells = [GATES.get(gate, gate), number, str(found[0].parameters)]
        cells += [
            _spread(list(scores.values())),
            _spread(list(_by_seed(found, "test_mae").values())),
        ]
        cells += ["" if model == "dense" else _difference(scores, dense)]
        cells += ["" if gate in ("dense", "linear") else _difference(scores, linear)]
        cells += routing.get(model, ["", ""])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_seed(rows: list[Row], score: str = "test_mse") -> Scores:
    return {row.seed: float(getattr(row, score)) for row in rows}


def _routing(protocol: str) -> dict[str, list[str]]:
    """Return the mean change rate and selection entropy by model, over layers and seeds."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (RESULTS / "routing" / "cells.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["protocol"] == protocol:
                found[row["model"]].append(row)
    names = ("mean_change_rate", "selection_entropy")
    return {
        model: [f"{fmean(float(row[name]) for row in rows):.3f}" for name in names]
        for model, rows in found.items()
    }


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _difference(scores: Scores, base: Scores) -> str:
    """Return the mean paired difference, with Student's 95 % interval where there are seeds."""
    assert scores.keys() == base.keys()
    pairs = [scores[seed] - base[seed] for seed in sorted(scores)]
    if len(pairs) == 1:
        return f"{pairs[0]:+.4f}"
    half = stats.t.ppf(0.975, len(pairs) - 1) * stdev(pairs) / len(pairs) ** 0.5
    return f"{fmean(pairs):+.2f} ({fmean(pairs) - half:+.2f} to {fmean(pairs) + half:+.2f})"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tables_of_the_page_are_those_of_the_committed_results(protocol: str) -> None:
    page = (ROOT / "docs" / "moe.md").read_text(encoding="utf-8")
    assert table(protocol) in page


if __name__ == "__main__":
    print("\n\n".join(map(table, PROTOCOLS)))
