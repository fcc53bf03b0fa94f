"""Paired differences of sides: over seeds where there are several, else over windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tsattn.bench.compare.errors import METRICS, Array, ErrorsOfRun
from tsattn.bench.compare.sides import Scored
from tsattn.bench.paired import FEW_BLOCKS, Difference, holm, over_seeds, over_windows
from tsattn.errors import ConfigError

_RESAMPLES_OF_CURVES = 2_000


@dataclass(frozen=True)
class Pairing:
    """How sides are paired.

    Attributes:
        over: ``seeds`` or ``windows``.
        seeds: the seeds that all sides have; empty where windows are paired.
        block: windows of a block; None where seeds are paired.
        notes: what a reader should know.
    """

    over: Literal["seeds", "windows"]
    seeds: tuple[int, ...]
    block: int | None
    notes: tuple[str, ...]


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


def pairing_of(sides: Sequence[Scored], horizon: int, block: int | None = None) -> Pairing:
    """Choose how to pair.

    Args:
        sides: what is compared.
        horizon: steps of a forecast; windows closer than that have targets in common.
        block: windows of a block; None means ``horizon``, a third of the windows at most.

    Raises:
        ConfigError: sets of runs with fewer than two common seeds, or a block that does not fit.
    """
    if all(len(side.errors) == 1 for side in sides):
        return _over_windows(sides, horizon, block)
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
    return Pairing("seeds", shared, None, tuple(notes))


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
    def paired(take: Callable[[ErrorsOfRun], Array], *, quick: bool = False) -> Difference:
        if pairing.block is not None:
            (a,), (b,) = first.errors.values(), other.errors.values()
            more = {"resamples": _RESAMPLES_OF_CURVES} if quick else {}
            return over_windows(take(b) - take(a), pairing.block, **more)
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
                paired(lambda run, m=m, c=c: run.by_channel_WC[m][:, c], quick=True)
                for c in range(num_channels)
            ]
            for m in METRICS
        },
        steps={
            m: [
                paired(lambda run, m=m, h=h: run.by_step_WH[m][:, h], quick=True)
                for h in range(num_steps)
            ]
            for m in METRICS
        },
    )


def _over_windows(sides: Sequence[Scored], horizon: int, block: int | None) -> Pairing:
    (run,) = sides[0].errors.values()
    windows = len(run.by_window("mse"))
    chosen = min(horizon, max(1, windows // 3)) if block is None else block
    if not 1 <= chosen <= windows:
        raise ConfigError(f"--block must be within 1..{windows} (the test windows), got {chosen}")
    notes = ["one run each: this speaks of other stretches of time, not of other seeds"]
    if windows / chosen < FEW_BLOCKS:
        notes.append(
            f"{windows} windows are only {windows / chosen:.1f} blocks of {chosen}: the interval "
            "is rough, and rather too narrow"
        )
    seeds = {seed for side in sides for seed in side.errors}
    if len(seeds) > 1:
        names = ", ".join(sorted(map(str, seeds)))
        notes.append(f"the seeds differ ({names}): part of the difference may be theirs")
    return Pairing("windows", (), chosen, tuple(notes))


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"
