"""Verdicts, against scipy and against what they mean."""

import numpy as np
import pytest
from scipy import stats

from tests.bench.leaderboard.made import ILLNESS, illness, row
from tsattn.bench.leaderboard.cells import Board, Cell
from tsattn.bench.leaderboard.claims import (
    Comparison,
    Verdict,
    any_beats,
    compare_with,
    is_best,
)
from tsattn.bench.leaderboard.sentences import sentence

NAMES = ("identity", "gelu", "relu", "sigmoid", "silu", "tanh")
UNKNOWN: dict[str, float | None] = {name: None for name in NAMES}  # noqa: C420
NOISE = np.array([0.00, 0.01, -0.01, 0.005, -0.005])


def cells(shifts: dict[str, float], seeds: int = 5, noise: float = 1.0) -> dict[str, Cell]:
    """Return cells whose error is a shift, with a noise of its own for every activation."""
    rows = [
        row(value_activation=name, seed=s, test_mse=2.0 + s + shift + noise * NOISE[(s * i) % 5])
        for i, (name, shift) in enumerate(shifts.items())
        for s in range(seeds)
    ]
    return Board(rows).row_of_cells("table2", "patchtst", "illness")


def by_name(comparisons: list[Comparison]) -> dict[str, Comparison]:
    return {comparison.activation: comparison for comparison in comparisons}


def test_differences_are_scipys_and_p_is_adjusted_for_all_that_were_compared() -> None:
    found = by_name(compare_with("identity", Board(illness()).row_of_cells(
        "table2", "patchtst", "illness"), UNKNOWN))  # fmt: skip
    assert found.keys() == {"gelu", "tanh"}
    base = list(ILLNESS["identity"].values())
    raw = {}
    for name, comparison in found.items():
        test = stats.ttest_rel(list(ILLNESS[name].values()), base)
        raw[name] = float(test.pvalue)
        interval = test.confidence_interval(0.95)
        assert comparison.difference.p == pytest.approx(raw[name])
        assert comparison.difference.low == pytest.approx(interval.low)
        assert comparison.difference.high == pytest.approx(interval.high)
    assert raw["tanh"] < raw["gelu"]
    assert found["tanh"].adjusted_p == pytest.approx(2 * raw["tanh"])
    assert found["gelu"].adjusted_p == pytest.approx(raw["gelu"])
    assert found["tanh"].verdict is Verdict.SUPPORTED


def test_pairs_are_the_seeds_that_both_have() -> None:
    rows = [row(value_activation="identity", seed=s, test_mse=float(s)) for s in (1, 2, 3)]
    rows += [row(value_activation="tanh", seed=s, test_mse=s + 0.5) for s in (2, 3, 4)]
    rows += [row(value_activation="relu", seed=9, test_mse=0.1)]
    board = Board(rows).row_of_cells("table2", "patchtst", "illness")
    (found,) = compare_with("identity", board, UNKNOWN)
    assert (found.activation, found.difference.pairs, found.difference.mean) == ("tanh", 2, 0.5)


def test_one_seed_is_always_undecided() -> None:
    found = compare_with("identity", cells({"identity": 0, "tanh": -1.0}, seeds=1), UNKNOWN)
    assert [c.verdict for c in found] == [Verdict.UNDECIDED]
    assert found[0].adjusted_p is None


@pytest.mark.parametrize(
    ("shift", "published", "verdict"),
    [
        (-0.5, -0.1, Verdict.SUPPORTED),
        (+0.5, -0.1, Verdict.NOT_SUPPORTED),
        (0.0, -0.5, Verdict.NOT_SUPPORTED),  # as large an improvement is excluded
        (0.0, -0.001, Verdict.UNDECIDED),  # so small a one is not
        (0.0, +0.5, Verdict.UNDECIDED),  # the paper has no improvement to exclude
        (0.0, None, Verdict.UNDECIDED),
        (+0.5, None, Verdict.NOT_SUPPORTED),
    ],
)
def test_verdict_follows_the_interval_and_the_papers_difference(
    shift: float, published: float | None, verdict: Verdict
) -> None:
    paper = UNKNOWN | {"identity": 1.0, "tanh": None if published is None else 1.0 + published}
    (found,) = compare_with("identity", cells({"identity": 0.0, "tanh": shift}), paper)
    assert found.verdict is verdict


def test_improvement_that_only_the_adjustment_takes_away_is_undecided() -> None:
    """The interval lies below 0 and above the paper's difference; Holm's p is above the limit."""
    paper = UNKNOWN | {"identity": 1.0, "gelu": 0.3}
    names = dict.fromkeys(NAMES, 0.0) | {"gelu": -0.0131}
    found = by_name(compare_with("identity", cells(names), paper))["gelu"]
    assert found.adjusted_p is not None
    assert found.adjusted_p > 0.05
    assert found.difference.high is not None
    assert found.difference.high < 0
    assert found.verdict is Verdict.UNDECIDED


def test_many_comparisons_need_more_evidence_than_one() -> None:
    two = compare_with("identity", cells({"identity": 0.0, "tanh": -0.012}, noise=1.2), UNKNOWN)
    assert two[0].difference.p is not None
    names = dict.fromkeys(NAMES, 0.0) | {"tanh": -0.012}
    six = by_name(compare_with("identity", cells(names, noise=1.2), UNKNOWN))["tanh"]
    assert six.adjusted_p is not None
    assert six.difference.p is not None
    assert six.adjusted_p > six.difference.p


def test_an_activation_beats_identity_where_one_does() -> None:
    shifts = dict.fromkeys(NAMES, 0.5) | {"identity": 0.0}
    worse = compare_with("identity", cells(shifts), UNKNOWN)
    assert any_beats(worse, 5) is Verdict.NOT_SUPPORTED
    assert any_beats(worse[:4], 5) is Verdict.UNDECIDED  # one was not run
    one = compare_with("identity", cells(shifts | {"silu": -0.5}), UNKNOWN)
    assert any_beats(one, 5) is Verdict.SUPPORTED
    assert any_beats([], 5) is Verdict.UNDECIDED


def test_best_of_all_must_beat_each_of_the_others() -> None:
    shifts = dict.fromkeys(NAMES, 0.5) | {"tanh": 0.0}
    assert is_best(compare_with("tanh", cells(shifts), UNKNOWN), 5) is Verdict.SUPPORTED
    tie = compare_with("tanh", cells(shifts | {"gelu": 0.0}), UNKNOWN)
    assert is_best(tie, 5) is Verdict.UNDECIDED
    beaten = compare_with("tanh", cells(shifts | {"gelu": -0.5}), UNKNOWN)
    assert is_best(beaten, 5) is Verdict.NOT_SUPPORTED
    few = compare_with("tanh", cells({"identity": 0.5, "tanh": 0.0}), UNKNOWN)
    assert is_best(few, 5) is Verdict.UNDECIDED


def test_sentence_says_the_verdict_and_the_numbers() -> None:
    shifts = dict.fromkeys(NAMES, 0.5) | {"identity": 0.0, "tanh": -0.5}
    found = cells(shifts)
    paper = UNKNOWN | {"identity": 1.0, "tanh": 0.9}
    text = sentence(found, compare_with("identity", found, paper), paper)
    assert text.startswith("That an activation beats identity is supported over 5 paired seeds: by")
    assert "Tanh (p < 0.001)" in text
    assert "Tanh − identity is −0.50" in text
    assert text.endswith("the paper has −0.100.")


def test_sentence_about_some_that_are_worse_speaks_of_the_others() -> None:
    shifts = dict.fromkeys(NAMES, 0.0) | {"sigmoid": 0.5}
    found = cells(shifts)
    text = sentence(found, compare_with("identity", found, UNKNOWN), UNKNOWN)
    assert "undecided over 5 paired seeds: the others' differences lie within" in text
    assert "the nearest to a difference is Sigmoid" not in text
    assert "Sigmoid (p < 0.001) is worse than identity." in text


def test_sentence_without_identity_or_common_seeds_is_undecided() -> None:
    only = cells({"tanh": 0.0})
    assert sentence(only, [], UNKNOWN) == (
        "Undecided: identity has no finished run to compare with."
    )
    rows = [row(value_activation="identity", seed=1), row(value_activation="tanh", seed=2)]
    apart = Board(rows).row_of_cells("table2", "patchtst", "illness")
    assert "no activation shares a seed" in sentence(apart, [], UNKNOWN)
