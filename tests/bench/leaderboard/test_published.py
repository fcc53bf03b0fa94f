"""The quoted figures are those of the protocol."""

import re
from pathlib import Path

from tsattn.bench.leaderboard.published import (
    ACTIVATIONS,
    DATASETS,
    MODELS,
    SOURCES,
    quoted,
    table2_mse,
)


def test_table_2_is_complete_and_nothing_is_there_twice() -> None:
    places = [(q.source, q.model, q.value_activation, q.dataset) for q in quoted()]
    assert len(set(places)) == len(places)
    assert {source for source, *_ in places} == SOURCES.keys()
    for model in MODELS:
        for name in ACTIVATIONS:
            assert all(table2_mse(model, name, dataset) for dataset in DATASETS)
    assert table2_mse("patchtst", "tanh", "own") is None


def test_figures_are_those_of_the_protocol(shared: Path) -> None:
    text = (shared / "reference" / "PROTOCOL.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (PatchTST|Transformer) \| (\w+)[^|]*\|(.*)\|$", text, re.MULTILINE)
    assert len(lines) == 12
    for model, activation, cells in lines:
        name = activation.lower().replace("linear", "identity")
        theirs = [float(cell) for cell in cells.split("|")]
        ours = [table2_mse(model.lower(), name, dataset) for dataset in DATASETS]
        assert ours == theirs, (model, activation)
