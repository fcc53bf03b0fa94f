"""Paired timings: everything that is compared runs in turn, round after round.

What slows the machine for a while then slows all of them, and the ratio within a round stays. The
figure is the median of the rounds' ratios; the smallest and the largest stand beside it.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

from tsattn.errors import ConfigError

Clock = Callable[[], float]
"""Tells the seconds since some moment."""


@dataclass(frozen=True)
class Spread:
    """The median of several figures, and the smallest and largest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Summarise figures, at least one."""
        return cls(median(figures), min(figures), max(figures))


def measure(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int = 2,
    before: Mapping[str, Callable[[], Any]] | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Run all contenders in turn, ``rounds`` times.

    Args:
        contenders: what to run, by name.
        rounds: how often each of them is measured, at least 1.
        warm_up: rounds before that whose times are not kept.
        before: what to run each time before a contender, without the clock.
        clock: tells the seconds.

    Returns:
        Seconds of every round, by name; the same place means the same round.

    Raises:
        ConfigError: fewer than one round.
    """
    samples = {
        name: partial(_timed, run, before[name] if before else None, clock)
        for name, run in contenders.items()
    }
    return take_turns(samples, rounds, warm_up=warm_up)


def take_turns(
    samples: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 2
) -> dict[str, list[float]]:
    """Take one sample of every contender in turn, ``rounds`` times.

    Args:
        samples: what runs a contender and tells the seconds that it took, by name.
        rounds: how many samples of each are kept, at least 1.
        warm_up: rounds before that whose times are not kept.

    Returns:
        Seconds of every round, by name; the same place means the same round.

    Raises:
        ConfigError: fewer than one round.
    """
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, got {rounds}")
    for _ in range(warm_up):
        for sample in samples.values():
            sample()
    seconds: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(rounds):
        for name, sample in samples.items():
            seconds[name].append(sample())
    return seconds


def repeated(
    run: Callable[[], Any],
    times: int,
    *,
    before: Callable[[], Any] | None = None,
    clock: Clock = time.perf_counter,
) -> float:
    """Run something several times and return the seconds of one, in the mean.

    Args:
        run: what to run.
        times: how often, at least 1.
        before: what to run each time before it, without the clock.
        clock: tells the seconds.
    """
    return sum(_timed(run, before, clock) for _ in range(times)) / times


def _timed(run: Callable[[], Any], before: Callable[[], Any] | None, clock: Clock) -> float:
    if before is not None:
        before()
    start = clock()
    run()
    return clock() - start


def speed_up(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return how many times faster ours is, from the ratios within each round.

    Raises:
        ValueError: lists of different lengths, which were not measured in turn.
    """
    return Spread.of([their / our for our, their in zip(ours, theirs, strict=True)])


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """Run with this many threads and without garbage collection; both are put back afterwards.

    Raises:
        ConfigError: fewer than one thread.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
