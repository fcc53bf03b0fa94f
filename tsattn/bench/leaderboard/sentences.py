"""The plain sentence about a model on a dataset."""

from collections.abc import Mapping, Sequence

from tsattn.bench.leaderboard.cells import Cell, Ranking
from tsattn.bench.leaderboard.claims import Comparison, Verdict, any_beats
from tsattn.bench.leaderboard.tables import interval, label, probability, sign


def sentence(
    cells: Mapping[str, Cell],
    comparisons: Sequence[Comparison],
    published: Mapping[str, float | None],
) -> str:
    """Say whether an activation beats identity here, and how Tanh stands.

    Args:
        cells: a cell for every activation.
        comparisons: every activation beside identity.
        published: the paper's test MSE for every activation.
    """
    if not cells["identity"].rows:
        return "Undecided: identity has no finished run to compare with."
    if not comparisons:
        return "Undecided: no activation shares a seed with identity."
    verdict = any_beats(list(comparisons), len(cells) - 1)
    return " ".join([_claim(verdict, comparisons), *_tanh(comparisons, published)])


def beaten_by_floor(cells: Sequence[Cell], floors: Sequence[Cell]) -> list[str]:
    """Say that the best of the floors is better than every one of the cells, where it is.

    Args:
        cells: of the activations that have runs.
        floors: of forecasts that need no training, over the same windows.
    """
    best = min((cell.mean() or 0.0 for cell in cells), default=None)
    floor = min(floors, key=lambda cell: cell.mean() or 0.0, default=None)
    if best is None or floor is None or best < (floor.mean() or 0.0):
        return []
    mean = floor.mean() or 0.0
    return [
        f"None of these is better than a forecast that needs no training: "
        f"{label(floor.model)} has {mean:.3f}, the best of them {best:.3f}."
    ]


def ranked(ranking: Ranking) -> str:
    """Say over which seeds best and second best were found."""
    if not ranking.order:
        return "Not ranked: no two activations share a seed."
    seeds = ", ".join(map(str, ranking.seeds))
    return (
        f"Ranked among {len(ranking.order)} activations over what they share: "
        f"{'seed' if len(ranking.seeds) == 1 else 'seeds'} {seeds}."
    )


def _claim(verdict: Verdict, comparisons: Sequence[Comparison]) -> str:
    start = f"That an activation beats identity is {verdict}"
    tested = [c for c in comparisons if c.adjusted_p is not None]
    if not tested:
        return f"{start}: one seed is no sample, an interval needs two."
    seeds = _range([c.difference.pairs for c in tested])
    if verdict is Verdict.SUPPORTED:
        better = [c for c in tested if c.verdict is verdict]
        names = _listed([f"{label(c.activation)} ({_p(c)})" for c in better])
        return f"{start} over {seeds} paired seeds: by {names}."
    if verdict is Verdict.NOT_SUPPORTED:
        return (
            f"{start} over {seeds} paired seeds: for each of the {len(tested)} the interval "
            "excludes an improvement as large as the paper's, or any."
        )
    worse = [c for c in tested if c.difference.mean > 0 and (c.adjusted_p or 0.0) < 0.05]
    others = [c for c in tested if c not in worse]
    text = f"{start} over {seeds} paired seeds"
    if others:
        nearest = min(others, key=lambda c: (c.adjusted_p or 0.0, c.activation))
        whose = "the others' differences" if worse else "the differences"
        near = f"the nearest to a difference is {label(nearest.activation)}, {_p(nearest)}"
        text += f": {whose} lie within what seeds alone do ({near})"
    if worse:
        names = _listed([f"{label(c.activation)} ({_p(c)})" for c in worse])
        text += f". {names} {'is' if len(worse) == 1 else 'are'} worse than identity"
    return f"{text}."


def _tanh(comparisons: Sequence[Comparison], published: Mapping[str, float | None]) -> list[str]:
    found = next((c for c in comparisons if c.activation == "tanh"), None)
    if found is None:
        return []
    text = f"Tanh − identity is {interval(found.difference)}"
    tanh, identity = published.get("tanh"), published.get("identity")
    if tanh is None or identity is None:
        return [f"{text}."]
    return [f"{text}; the paper has {sign(tanh - identity)}."]


def _p(comparison: Comparison) -> str:
    text = probability(comparison.adjusted_p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
