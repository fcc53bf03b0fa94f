"""The same settings under several seeds, because one seed cannot tell activations apart."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.stats
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from tsattn.tune.claims import OF, SEED, values_of
from tsattn.tune.search import NothingQueuedError
from tsattn.tune.space import Space

CONFIDENCE = 0.95
SUFFIX = " seeds"
"""What the name of the study of repeats adds to that of the study."""

_FIRST_SEED = 1000
_WITHOUT_CHOICES = 3
_REFERENCE = "identity"


@dataclass(frozen=True)
class Contender:
    """Settings that are tried again.

    Attributes:
        label: A choice of the parameter that is compared, or the number of the trial.
        number: Of the trial that they come from.
    """

    label: str
    number: int


@dataclass(frozen=True)
class Comparison:
    """A contender beside the reference, seed by seed.

    Attributes:
        contender: Which one.
        losses: Best validation loss by seed.
        differences: To the reference with the same seed, by seed.
        low: Lower end of the interval of the mean difference; None with fewer than two seeds.
        high: Upper end.
        is_reference: Whether this is what the others are compared with.
    """

    contender: Contender
    losses: Mapping[int, float]
    differences: Mapping[int, float]
    low: float | None
    high: float | None
    is_reference: bool

    @property
    def mean(self) -> float:
        """Mean of all the losses, of whichever seeds."""
        return statistics.fmean(self.losses.values())

    @property
    def verdict(self) -> str:
        """``lower`` or ``higher`` where the interval leaves zero out, else ``undecided``."""
        if self.low is None or self.high is None:
            return "undecided"
        return "lower" if self.high < 0 else "higher" if self.low > 0 else "undecided"


@dataclass(frozen=True)
class Ranking:
    """Which contenders are best by seeds that all of them have finished.

    Attributes:
        seeds: The seeds that are compared; empty where they are fewer than two.
        means: Mean over these seeds, the lowest first; one that has finished fewer than two seeds
            takes no part.
    """

    seeds: tuple[int, ...]
    means: Mapping[Contender, float]


def contenders(study: Study, space: Space, again: Study | None = None) -> list[Contender]:
    """Return the best whole trial of every choice that is compared; without any, the best three.

    Args:
        study: the study.
        space: its space.
        again: the study of repeats, once they are to be compared: a trial that has been repeated
            then stands for its choice until a better one, found since, has been repeated too.
    """
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seeds = Counter(number for number, _ in _finished(again)) if again else Counter[int]()
    ranked = sorted(whole, key=lambda trial: (-min(2, seeds[trial.number]), trial.values[0]))
    if space.compared is None:
        return [Contender(f"trial {t.number}", t.number) for t in ranked[:_WITHOUT_CHOICES]]
    best: dict[str, Contender] = {}
    for trial in ranked:
        label = str(trial.params[space.compared.name])
        best.setdefault(label, Contender(label, trial.number))
    return [best[str(choice)] for choice in space.compared.choices if str(choice) in best]


def queue_repeats(study: Study, found: Sequence[Contender], seeds: int, base: int) -> None:
    """Queue what was not tried yet: every contender with every seed, seeds outermost.

    Args:
        study: the study of repeats.
        found: the contenders.
        seeds: how many.
        base: seed of the recipe; none of the search's first thousand seeds comes again.
    """
    known = {_key(trial) for trial in study.get_trials(deepcopy=False)}
    for seed in range(base + _FIRST_SEED, base + _FIRST_SEED + seeds):
        for contender in found:
            if (contender.number, seed) not in known:
                given = {OF: contender.number, SEED: seed}
                study.enqueue_trial(given, user_attrs=given)


def _key(trial: FrozenTrial) -> tuple[int, int]:
    """Return which contender a trial repeats with which seed, as it was queued; -1: unknown."""
    given = values_of(trial) | trial.user_attrs
    return given.get(OF, -1), given.get(SEED, -1)


def _finished(study: Study) -> dict[tuple[int, int], float]:
    """Return the loss of every finished repeat, by contender and seed."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {_key(trial): trial.values[0] for trial in whole}


def propose(trial: Trial) -> dict[str, Any]:
    """Take what was queued; nothing is drawn.

    Raises:
        NothingQueuedError: the trial is a new one.
    """
    stored = trial.study.get_trials(deepcopy=False)[trial.number]
    of, seed = _key(stored)
    if of < 0 or seed < 0:
        raise NothingQueuedError
    return {OF: of, SEED: seed}


def called(number: int, values: Mapping[str, Any]) -> str:
    """Name a repeat as people read it."""
    return f"repeat {number} (settings of trial {values[OF]}, seed {values[SEED]})"


def compare(study: Study, found: Sequence[Contender], reference: str | None) -> list[Comparison]:
    """Compare every contender with the reference on the seeds that both have finished.

    The interval is Student's, of the mean of the paired differences; it takes the differences for
    normal, and none of several comparisons is corrected for the others.

    Args:
        study: the study of repeats.
        found: the contenders.
        reference: label of the one that others are compared with; None: the best by `rank`, and
            where nobody has two seeds the lowest mean.
    """
    by_number: dict[int, dict[int, float]] = {contender.number: {} for contender in found}
    for (of, seed), loss in _finished(study).items():
        if of in by_number:
            by_number[of][seed] = loss
    losses = {c: by_number[c.number] for c in found if by_number[c.number]}
    if not losses:
        return []
    named = [contender for contender in losses if contender.label == reference]
    lowest = min(losses, key=lambda contender: statistics.fmean(losses[contender].values()))
    beside = [*named, *rank(losses).means, lowest][0]
    return [_comparison(c, mine, losses[beside], c is beside) for c, mine in losses.items()]


def rank(losses: Mapping[Contender, Mapping[int, float]]) -> Ranking:
    """Order contenders fairly: by their mean over the seeds that all of them have finished.

    A lucky or a missing seed decides nothing so. One with fewer than two finished seeds takes no
    part, or it would take all other seeds out of the comparison.

    Args:
        losses: of every contender, by seed.
    """
    several = {contender: mine for contender, mine in losses.items() if len(mine) > 1}
    shared = sorted(set.intersection(*(set(m) for m in several.values()))) if several else []
    if len(shared) < 2:
        return Ranking((), {})
    means = {c: statistics.fmean(mine[s] for s in shared) for c, mine in several.items()}
    ordered = sorted(means, key=means.__getitem__)
    return Ranking(tuple(shared), {contender: means[contender] for contender in ordered})


def reference_of(found: Sequence[Contender]) -> str | None:
    """Return ``identity`` where it takes part."""
    return _REFERENCE if any(c.label == _REFERENCE for c in found) else None


def _comparison(
    contender: Contender, losses: dict[int, float], beside: dict[int, float], itself: bool
) -> Comparison:
    mine = dict(sorted(losses.items()))
    paired = {} if itself else {s: mine[s] - beside[s] for s in mine if s in beside}
    low, high = _interval(list(paired.values()))
    return Comparison(contender, mine, paired, low, high, itself)


def _interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    if len(differences) < 2:
        return None, None
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return mean, mean
    low, high = scipy.stats.t.interval(CONFIDENCE, len(differences) - 1, loc=mean, scale=error)
    return float(low), float(high)
