"""Paired differences of sides: over seeds where there are several, else over windows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsattn.bench.compare.errors import METRICS, ErrorsOfRun, Sums
from tsattn.bench.compare.missing import notes_on_missing
from tsattn.bench.compare.ratios import (
    Blocks,
    Counts,
    all_over_windows,
    blocks_with_targets,
    part_over_seeds,
    part_over_windows,
)
from tsattn.bench.compare.sides import Scored
from tsattn.bench.paired import MIN_BLOCKS, Difference, holm, time_blocks
from tsattn.data.amounts import counted, listed
from tsattn.errors import ConfigError
from tsattn.training.datamodule import ForecastData


@dataclass(frozen=True, eq=False)
class Pairing:
    """How sides are paired.

    Attributes:
        over: ``seeds`` or ``windows``.
        seeds: the seeds that all sides have; empty where windows are paired.
        blocks_W: block of every window, -1 for those without any observed target; None where seeds
            are paired.
        block: shortest length of a block; 0 where seeds are paired.
        notes: what a reader should know.
        scarce: channels with targets in too few blocks, though there are enough of all.
    """

    over: Literal["seeds", "windows"]
    seeds: tuple[int, ...]
    blocks_W: Blocks | None
    block: int
    notes: tuple[str, ...]
    scarce: tuple[str, ...] = ()

    def runs_of(self, side: Scored) -> list[ErrorsOfRun]:
        """Return the runs of a side that are compared: those of the seeds that all sides have."""
        return [run for seed, run in side.errors.items() if not self.seeds or seed in self.seeds]

    @property
    def num_blocks(self) -> int:
        """Number of blocks; 0 where seeds are paired."""
        return 0 if self.blocks_W is None else int(self.blocks_W.max()) + 1

    @property
    def too_few(self) -> bool:
        """Whether there are too few blocks for intervals and verdicts."""
        return self.over == "windows" and self.num_blocks < MIN_BLOCKS

    @property
    def method(self) -> str:
        """What is paired and how it is tested, in words."""
        if self.blocks_W is None:
            return f"{len(self.seeds)} seeds, Student's t"
        blocks = counted(self.num_blocks, "block")
        undecided = self.too_few or self.scarce
        test = "too few for a test" if undecided else "Student's t"
        windows = int((self.blocks_W >= 0).sum())
        return f"{windows} windows, {blocks} of {self.block} or more, {test}"


@dataclass(frozen=True)
class Compared:
    """One side beside the first.

    Attributes:
        name: of the side.
        total: difference of the score over all windows, for ``mse`` and ``mae``.
        adjusted_p: Holm's p-value of the MSE among all sides; None without an interval.
        channels: difference of every channel, likewise for both scores; NaN without any target.
        steps: difference of every step of the horizon.
    """

    name: str
    total: dict[str, Difference]
    adjusted_p: float | None
    channels: dict[str, list[Difference]]
    steps: dict[str, list[Difference]]


def pairing_of(sides: Sequence[Scored], data: ForecastData, block: int | None = None) -> Pairing:
    """Choose how to pair.

    Args:
        sides: what is compared.
        data: the data; windows closer than its horizon have targets in common.
        block: windows of a block; None means two horizons, all windows at most.

    Raises:
        ConfigError: sets of runs with fewer than two common seeds, or a block that does not fit.
    """
    if all(len(side.errors) == 1 for side in sides):
        return _over_windows(sides, data, block)
    if block is not None:
        raise ConfigError("--block belongs to single runs; sets of runs are paired by their seeds")
    have = [{seed for seed in side.errors if seed is not None} for side in sides]
    shared = tuple(sorted(set.intersection(*have)))
    if len(shared) < 2:
        lists = "; ".join(f"{s.name}: {_listed(h)}" for s, h in zip(sides, have, strict=True))
        raise ConfigError(
            f"a paired comparison of sets needs two common seeds at least, found {len(shared)} "
            f"({lists}); train the missing seeds with --seed_everything, or compare single runs"
        )
    unused = set.union(*have) - set(shared)
    notes = [f"seeds {_listed(unused)} are not in every set and were left out"] if unused else []
    if len(shared) < 5:
        notes.append(f"{len(shared)} seeds are few; five are usual for a claim")
    notes += notes_on_missing(_any_errors(sides), data.prepared.panel.channels)
    return Pairing("seeds", shared, None, 0, tuple(notes))


def compare_sides(sides: Sequence[Scored], pairing: Pairing) -> list[Compared]:
    """Compare every side with the first."""
    first, *others = sides
    compared = [_compared(first, side, pairing) for side in others]
    p_values = [one.total["mse"].p for one in compared]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [
        one if p is None else replace(one, adjusted_p=next(adjusted))
        for one, p in zip(compared, p_values, strict=True)
    ]


def _compared(first: Scored, other: Scored, pairing: Pairing) -> Compared:
    if pairing.blocks_W is None:
        a, b = ([side.errors[seed] for seed in pairing.seeds] for side in (first, other))
    else:
        a, b = (list(side.errors.values()) for side in (first, other))
    return Compared(
        name=other.name,
        total=_total(a, b, pairing.blocks_W),
        adjusted_p=None,
        channels=_parts([r.channels for r in a], [r.channels for r in b], pairing.blocks_W),
        steps=_parts([r.steps for r in a], [r.steps for r in b], pairing.blocks_W),
    )


def _total(
    first: Sequence[ErrorsOfRun], other: Sequence[ErrorsOfRun], blocks_W: Blocks | None
) -> dict[str, Difference]:
    """Compare the scores of one run each over windows, or of sets of runs over seeds."""
    if blocks_W is None:
        return {
            m: part_over_seeds([b.score(m) - a.score(m) for a, b in zip(first, other, strict=True)])
            for m in METRICS
        }
    a, b = first[0].channels, other[0].channels
    return {
        m: all_over_windows(b.errors[m] - a.errors[m], a.observed_WP, blocks_W) for m in METRICS
    }


def _parts(
    first: Sequence[Sums], other: Sequence[Sums], blocks_W: Blocks | None
) -> dict[str, list[Difference]]:
    """Compare every part likewise."""
    found: dict[str, list[Difference]] = {}
    for m in METRICS:
        if blocks_W is None:
            pairs = zip(first, other, strict=True)
            scores_SP = np.array([b.scores(m) - a.scores(m) for a, b in pairs])
            found[m] = [part_over_seeds(scores_S) for scores_S in scores_SP.T.tolist()]
        else:
            observed_WP = first[0].observed_WP
            sums_WP = other[0].errors[m] - first[0].errors[m]
            found[m] = [
                part_over_windows(sums_W, observed_W, blocks_W)
                for sums_W, observed_W in zip(sums_WP.T, observed_WP.T, strict=True)
            ]
    return found


def _over_windows(sides: Sequence[Scored], data: ForecastData, block: int | None) -> Pairing:
    observed_WC = _any_errors(sides).channels.observed_WP
    seen_W, times_W, apart = observed_WC.any(axis=1), _first_targets(data), 2 * data.horizon
    times = len(np.unique(times_W[seen_W]))
    chosen = min(apart, times) if block is None else block
    if not 1 <= chosen <= times:
        raise ConfigError(f"--block must be within 1..{times} (the test windows), got {chosen}")
    blocks_W = np.full(len(times_W), -1, dtype=np.intp)
    blocks_W[seen_W] = time_blocks(times_W[seen_W], chosen)
    few = int(blocks_W.max()) + 1 < MIN_BLOCKS
    scarce = () if few else _scarce(observed_WC, blocks_W, data.prepared.panel.channels)
    notes = [
        "one run each: this speaks of other stretches of time, not of other seeds",
        *_notes_on_blocks(chosen, apart, scarce, few=few),
    ]
    seeds = {seed for side in sides for seed in side.errors}
    if len(seeds) > 1:
        names = ", ".join(sorted(map(str, seeds)))
        notes.append(f"the seeds differ ({names}): part of the difference may be theirs")
    notes += notes_on_missing(_any_errors(sides), data.prepared.panel.channels)
    return Pairing("windows", (), blocks_W, chosen, tuple(notes), scarce)


def _notes_on_blocks(block: int, apart: int, scarce: Sequence[str], *, few: bool) -> list[str]:
    """Say what blocks lack: their number, their length, or targets of some channels."""
    notes = []
    remedy = "give several seeds of each side, which are paired by seed"
    if few:
        notes.append(f"fewer than {MIN_BLOCKS} blocks have no interval and no p; {remedy}")
    elif block < apart:
        notes.append(
            f"blocks of {block} are shorter than two horizons ({apart}): neighbours have targets "
            "in common, so p is smaller than it should be"
        )
    if scarce:
        notes.append(
            f"channels with targets in fewer than {MIN_BLOCKS} blocks leave the score of all "
            f"without interval and p: {listed(scarce)}; {remedy}"
        )
    return notes


def _any_errors(sides: Sequence[Scored]) -> ErrorsOfRun:
    """Return the errors of a run; which targets were observed is the same of all."""
    return next(iter(sides[0].errors.values()))


def _scarce(observed_WC: Counts, blocks_W: Blocks, channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels that have targets, but in too few blocks."""
    blocks_C = blocks_with_targets(observed_WC, blocks_W)
    return tuple(
        name for name, blocks in zip(channels, blocks_C, strict=True) if 0 < blocks < MIN_BLOCKS
    )


def _first_targets(data: ForecastData) -> NDArray[np.int64]:
    """Return the time of the first target of every test window, in microseconds."""
    panel, windows = data.prepared.panel, data.prepared.test
    times_R = np.concatenate([one.times.as_unit("us").asi8 for one in panel.series])
    return times_R[windows.starts_W.numpy() + data.context]


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"
