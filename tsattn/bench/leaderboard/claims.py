"""What the rows say about a claim: supported, not supported, or undecided."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tsattn.bench.leaderboard.cells import Cell
from tsattn.bench.paired import LEVEL, Difference, holm, over_seeds

LIMIT = 1 - LEVEL


class Verdict(StrEnum):
    """How a claim stands."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """One activation beside a reference, over the seeds that both have.

    Attributes:
        activation: the activation.
        difference: its test MSE minus the reference's.
        published: the same difference in the paper's table; None where it is not known.
        adjusted_p: Holm's p-value among all comparisons with this reference; None with one seed.
        verdict: of the claim that the activation has the smaller error.
    """

    activation: str
    difference: Difference
    published: float | None
    adjusted_p: float | None = None
    verdict: Verdict = Verdict.UNDECIDED


def compare_with(
    reference: str, cells: Mapping[str, Cell], published: Mapping[str, float | None]
) -> list[Comparison]:
    """Compare every activation with one of them, over the seeds that both have.

    The claim "it beats the reference" is

    - *supported* where the mean difference is negative and its p-value, adjusted for the number of
      activations compared (Holm), is below 0.05;
    - *not supported* where the 95 % interval holds 0 or worse, and lies above 0 or above the
      paper's difference: an improvement as large as the published one is then excluded;
    - *undecided* otherwise, always with fewer than two seeds. An improvement that is smaller than
      the paper's and that only the adjustment takes from 0 is undecided, too.

    Args:
        reference: the activation to compare with.
        cells: a cell for every activation.
        published: the paper's test MSE for every activation.
    """
    compared: list[Comparison] = []
    base, theirs = cells[reference].scores(), published.get(reference)
    for name, cell in cells.items():
        scores = cell.scores()
        shared = sorted(scores.keys() & base.keys())
        if name == reference or not shared:
            continue
        ours = published.get(name)
        claimed = None if ours is None or theirs is None else ours - theirs
        difference = over_seeds([scores[seed] - base[seed] for seed in shared])
        compared.append(Comparison(name, difference, claimed))
    tested = [c for c in compared if c.difference.p is not None]
    adjusted = dict(
        zip(
            (c.activation for c in tested),
            holm([c.difference.p for c in tested if c.difference.p is not None]),
            strict=True,
        )
    )
    return [_judged(c, adjusted.get(c.activation)) for c in compared]


def _judged(comparison: Comparison, p: float | None) -> Comparison:
    found, claimed = comparison.difference, comparison.published
    verdict = Verdict.UNDECIDED
    if p is not None and found.low is not None and found.high is not None:
        excluded = found.high >= 0 and found.low > min(claimed or 0.0, 0.0)
        if p < LIMIT and found.mean < 0:
            verdict = Verdict.SUPPORTED
        elif excluded:
            verdict = Verdict.NOT_SUPPORTED
    return replace(comparison, adjusted_p=p, verdict=verdict)


def any_beats(comparisons: list[Comparison], expected: int) -> Verdict:
    """Judge "an activation beats the reference".

    Supported where one does; not supported where all of them were compared and none does; undecided
    otherwise.

    Args:
        comparisons: of every activation with the reference.
        expected: how many activations there are to compare.
    """
    verdicts = [comparison.verdict for comparison in comparisons]
    if Verdict.SUPPORTED in verdicts:
        return Verdict.SUPPORTED
    if len(verdicts) == expected and set(verdicts) == {Verdict.NOT_SUPPORTED}:
        return Verdict.NOT_SUPPORTED
    return Verdict.UNDECIDED


def is_best(comparisons: list[Comparison], expected: int) -> Verdict:
    """Judge "the reference is the best of all".

    Supported where it has the smaller error than each of the others with p < 0.05 (that all are
    true needs no adjustment); not supported where one of the others has a smaller error than it,
    adjusted p < 0.05; undecided otherwise.

    Args:
        comparisons: of every other activation with the reference.
        expected: how many others there are.
    """
    if any(c.verdict is Verdict.SUPPORTED for c in comparisons):
        return Verdict.NOT_SUPPORTED
    worse = [c for c in comparisons if c.difference.mean > 0 and _below_limit(c.difference.p)]
    return Verdict.SUPPORTED if expected and len(worse) == expected else Verdict.UNDECIDED


def _below_limit(p: float | None) -> bool:
    return p is not None and p < LIMIT
