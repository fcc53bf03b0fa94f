"""Paired differences of sides: over seeds where there are several, else over windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsattn.bench.compare.errors import METRICS, Array, ErrorsOfRun
from tsattn.bench.compare.sides import Scored
from tsattn.bench.paired import (
    MIN_BLOCKS,
    Difference,
    holm,
    over_seeds,
    over_windows,
    time_blocks,
)
from tsattn.data.amounts import counted
from tsattn.errors import ConfigError
from tsattn.training.datamodule import ForecastData


@dataclass(frozen=True, eq=False)
class Pairing:
    """How sides are paired.

    Attributes:
        over: ``seeds`` or ``windows``.
        seeds: the seeds that all sides have; empty where windows are paired.
        blocks_W: block of every window; None where seeds are paired.
        block: shortest length of a block; 0 where seeds are paired.
        notes: what a reader should know.
    """

    over: Literal["seeds", "windows"]
    seeds: tuple[int, ...]
    blocks_W: NDArray[np.intp] | None
    block: int
    notes: tuple[str, ...]

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
        test = "too few for a test" if self.too_few else "Student's t"
        return f"{len(self.blocks_W)} windows, {blocks} of {self.block} or more, {test}"


@dataclass(frozen=True)
class Compared:
    """One side beside the first.

    Attributes:
        name: of the side.
        total: difference of the score over all windows, for ``mse`` and ``mae``.
        adjusted_p: Holm's p-value of the MSE among all sides; None without an interval.
        channels: difference of every channel, likewise for both scores.
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
    return Pairing("seeds", shared, None, 0, tuple(notes))


def compare_sides(sides: Sequence[Scored], pairing: Pairing) -> list[Compared]:
    """Compare every side with the first."""
    first, *others = sides
    compared = [_compared(first, side, pairing) for side in others]
    p_values = [one.total["mse"].p for one in compared]
    adjusted = holm([p for p in p_values if p is not None])
    if len(adjusted) < len(compared):
        return compared
    return [
        Compared(one.name, one.total, p, one.channels, one.steps)
        for one, p in zip(compared, adjusted, strict=True)
    ]


def _compared(first: Scored, other: Scored, pairing: Pairing) -> Compared:
    def paired(take: Callable[[ErrorsOfRun], Array]) -> Difference:
        if pairing.blocks_W is not None:
            (a,), (b,) = first.errors.values(), other.errors.values()
            return over_windows(take(b) - take(a), pairing.blocks_W)
        return over_seeds(
            [
                float(take(other.errors[seed]).mean() - take(first.errors[seed]).mean())
                for seed in pairing.seeds
            ]
        )

    any_run = next(iter(first.errors.values()))
    num_channels, num_steps = (
        any_run.by_channel_WC["mse"].shape[1],
        any_run.by_step_WH["mse"].shape[1],
    )
    return Compared(
        name=other.name,
        total={m: paired(lambda run, m=m: run.by_window(m)) for m in METRICS},
        adjusted_p=None,
        channels={
            m: [
                paired(lambda run, m=m, c=c: run.by_channel_WC[m][:, c])
                for c in range(num_channels)
            ]
            for m in METRICS
        },
        steps={
            m: [paired(lambda run, m=m, h=h: run.by_step_WH[m][:, h]) for h in range(num_steps)]
            for m in METRICS
        },
    )


def _over_windows(sides: Sequence[Scored], data: ForecastData, block: int | None) -> Pairing:
    times_W, apart = _first_targets(data), 2 * data.horizon
    times = len(np.unique(times_W))
    chosen = min(apart, times) if block is None else block
    if not 1 <= chosen <= times:
        raise ConfigError(f"--block must be within 1..{times} (the test windows), got {chosen}")
    blocks_W = time_blocks(times_W, chosen)
    notes = ["one run each: this speaks of other stretches of time, not of other seeds"]
    if blocks_W.max() + 1 < MIN_BLOCKS:
        notes.append(
            f"fewer than {MIN_BLOCKS} blocks have no interval and no p; give several seeds of each "
            "side, which are paired by seed"
        )
    elif chosen < apart:
        notes.append(
            f"blocks of {chosen} are shorter than two horizons ({apart}): neighbours have targets "
            "in common, so p is smaller than it should be"
        )
    seeds = {seed for side in sides for seed in side.errors}
    if len(seeds) > 1:
        names = ", ".join(sorted(map(str, seeds)))
        notes.append(f"the seeds differ ({names}): part of the difference may be theirs")
    return Pairing("windows", (), blocks_W, chosen, tuple(notes))


def _first_targets(data: ForecastData) -> NDArray[np.int64]:
    """Return the time of the first target of every test window, in microseconds."""
    panel, windows = data.prepared.panel, data.prepared.test
    times_R = np.concatenate([one.times.as_unit("us").asi8 for one in panel.series])
    return times_R[windows.starts_W.numpy() + data.context]


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"
