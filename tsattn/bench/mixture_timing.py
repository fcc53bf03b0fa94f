"""Timings of mixtures of experts beside the dense feed-forward, and the bars they are held to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tsattn.bench.mixtures import (
    COMPETING,
    COMPETITION,
    PHASES,
    competitions_per_step,
    contender,
    runs_of,
)
from tsattn.bench.recipes import Recipe
from tsattn.bench.timing import Spread, measure, speed_up

WIDE = 128
"""Width of a token from which on a mixture is held to the bar beside the dense feed-forward."""
DENSE_BAR = 1.5
QUADRATIC_BAR = 1.1
COMPETITION_BAR = 1.15
Memory = Callable[[Recipe, str, str, str], tuple[float, float] | None]
"""Tells peak and growth in MiB of training: size, part, name, precision; None where unknown."""


@dataclass(frozen=True)
class MixtureTiming:
    """One feed-forward in one phase.

    Attributes:
        size: name of the recipe.
        part: ``feed-forward`` alone, or the ``network`` that has it.
        precision: ``float32`` or ``bf16``.
        phase: ``step`` (forwards, backwards, Adam), ``forward`` (training mode), ``backward`` or
            ``evaluation``.
        name: ``dense``, or the gate of the mixture; ``competition`` is the mean over a training
            in which layers compete as planned, ``competing`` a step at which one of them does.
        milliseconds: time of one batch.
        times: how many times as long as ``dense`` and as ``linear`` it takes; the rounds' ratios.
        bars: what such a median may be at most, where it is held to something.
        peak_mib: largest resident memory of a process that only trains this; None: not measured.
        growth_mib: how much of that came with the training itself.
    """

    size: str
    part: str
    precision: str
    phase: str
    name: str
    milliseconds: Spread
    times: dict[str, Spread]
    bars: dict[str, float]
    peak_mib: float | None = None
    growth_mib: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it takes longer than a bar allows."""
        return any(self.times[other].median > bar for other, bar in self.bars.items())


def bars_of(part: str, phase: str, name: str, width: int) -> dict[str, float]:
    """Return what a contender is held to, by the name of what it is compared with.

    A mixture of wide tokens takes at most `DENSE_BAR` times as long as the dense feed-forward, in
    every phase, alone and in the network; a step of the network with a quadratic gate at most
    `QUADRATIC_BAR` times as long as one with a linear gate; a step of a mixture with competition
    in the mean at most `COMPETITION_BAR` times as long as one without, alone and in the network.
    """
    if name in ("dense", COMPETING):
        return {}
    if name == COMPETITION:
        return {"linear": COMPETITION_BAR} if phase == "step" else {}
    bars: dict[str, float] = {}
    if width >= WIDE:
        bars["dense"] = DENSE_BAR
    if name in ("polynomial", "monomial") and part == "network" and phase == "step":
        bars["linear"] = QUADRATIC_BAR
    return bars


def time_mixtures(
    size: Recipe,
    parts: Sequence[str],
    names: Sequence[str],
    precisions: Sequence[str],
    *,
    rounds: int,
    memory: Memory,
) -> Iterator[MixtureTiming]:
    """Time all contenders of a size in turn, each part, precision and phase for itself.

    Steps at which a layer competes are timed beside free ones; the time of ``competition`` is that
    of a free step, and what a competing layer adds as often as layers compete by the plan.
    """
    names = [*names, *[COMPETING] * (COMPETITION in names and COMPETING not in names)]
    for part in parts:
        for precision in precisions:
            needed = {name: memory(size, part, name, precision) for name in names}
            needed |= {COMPETITION: needed[COMPETING]} if COMPETING in needed else {}
            made = {name: contender(size, part, name) for name in names}
            runs = {name: runs_of(one, precision) for name, one in made.items()}
            often = competitions_per_step(made[COMPETITION].module) if COMPETITION in made else 0.0
            for phase in PHASES:
                seconds = as_planned(_seconds(runs, phase, rounds), often)
                yield from _timings((size, part, precision, phase), seconds, needed)


def as_planned(seconds: Mapping[str, Sequence[float]], often: float) -> dict[str, list[float]]:
    """Turn free steps of a mixture with competition into the mean over a training.

    Args:
        seconds: of every round, by name.
        often: how many layers compete at a step, in the mean.
    """
    found = {name: list(taken) for name, taken in seconds.items()}
    if COMPETING in found:
        both = zip(seconds[COMPETITION], seconds[COMPETING], strict=True)
        found[COMPETITION] = [free + often * (competing - free) for free, competing in both]
    return found


def _seconds(
    runs: Mapping[str, Mapping[str, Callable[[], None]]], phase: str, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of every round, by name."""
    if phase == "evaluation":  # nothing competes there
        runs = {name: run for name, run in runs.items() if name != COMPETING}
    before = {name: run["loss"] for name, run in runs.items()} if phase == "backward" else None
    return measure({name: run[phase] for name, run in runs.items()}, rounds, before=before)


def _timings(
    case: tuple[Recipe, str, str, str],
    seconds: Mapping[str, list[float]],
    needed: Mapping[str, tuple[float, float] | None],
) -> Iterator[MixtureTiming]:
    size, part, precision, phase = case
    for name, taken in seconds.items():
        # how many times faster the other is, is how many times as long this one takes
        others = [o for o in ("dense", "linear") if o in seconds and o != name]
        peak = needed[name] if phase == "step" else None
        yield MixtureTiming(
            size=size.name,
            part=part,
            precision=precision,
            phase=phase,
            name=name,
            milliseconds=Spread.of([1e3 * s for s in taken]),
            times={other: speed_up(seconds[other], taken) for other in others},
            bars=bars_of(part, phase, name, size.arguments["d_model"]),
            peak_mib=peak[0] if peak else None,
            growth_mib=peak[1] if peak else None,
        )


def table(timings: Sequence[MixtureTiming]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows; ``!`` marks what a bar does not allow."""
    titles = ["recipe", "part", "precision", "phase", "who", "ms", "peak MiB"]
    titles += ["times dense", "times linear"]
    return titles, [
        [
            timing.size,
            timing.part,
            timing.precision,
            timing.phase,
            timing.name,
            _shown(timing.milliseconds, "3g"),
            "" if timing.peak_mib is None else f"{timing.peak_mib:.0f}",
            _times(timing, "dense"),
            _times(timing, "linear"),
        ]
        for timing in timings
    ]


def summary(timings: Sequence[MixtureTiming]) -> str:
    """Return the line below the table."""
    held = [timing for timing in timings if timing.bars]
    over = sum(timing.is_over for timing in held)
    return (
        f"{over} of {len(held)} over a bar (mixtures of tokens {WIDE} wide or more: {DENSE_BAR} "
        f"times the dense feed-forward; steps with quadratic gates: {QUADRATIC_BAR} times those "
        f"with the linear one; steps with competition: {COMPETITION_BAR} times those without)"
    )


def _times(timing: MixtureTiming, other: str) -> str:
    if other not in timing.times:
        return ""
    is_over = timing.times[other].median > timing.bars.get(other, float("inf"))
    return _shown(timing.times[other], "2f") + " !" * is_over


def _shown(spread: Spread, digits: str) -> str:
    low, high = f"{spread.lowest:.{digits}}", f"{spread.highest:.{digits}}"
    return f"{spread.median:.{digits}} ({low} to {high})"
