"""Peak memory of training on a recipe's batch, measured where it fits and else extrapolated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tsattn.bench.peers import peers_of
from tsattn.bench.recipes import Recipe
from tsattn.memory import available_mib

STEPS = 2
"""Optimiser steps of a measurement: from the second one on, moments and gradients are there."""
_FEWER = (12, 6)
_ROOM = 0.8

Measure = Callable[[Recipe, str], float | None]
"""Tells the peak in MiB of training a contender on a recipe's batch; None where it failed."""


@dataclass(frozen=True)
class MemoryUse:
    """What training one network on one recipe's batch needs.

    Attributes:
        recipe: name of the recipe.
        windows: windows of its batch.
        channels: channels of each.
        name: ``auto float32``, ``neuralforecast float32``, ...
        recompute: whether layers are recomputed in the backward pass.
        peak_mib: largest resident memory of a process that does nothing else.
        extrapolated_from: windows and peak of the smaller batches that ``peak_mib`` was
            extrapolated from, linearly; empty where it was measured.
    """

    recipe: str
    windows: int
    channels: int
    name: str
    recompute: bool
    peak_mib: float
    extrapolated_from: tuple[tuple[int, float], ...] = ()


def measure_training(
    recipe: Recipe, names: Sequence[str], measure: Measure, room_mib: float | None = None
) -> Iterator[MemoryUse]:
    """Measure every contender, ours with and without recomputation.

    Two smaller batches come first. What they extrapolate to is the answer where it is more than
    this machine can spare, or where the whole batch could not be trained after all.

    Args:
        recipe: the recipe.
        names: contenders, see `tsattn.bench.train.names_of`.
        measure: measures one.
        room_mib: memory that can be spared; None asks the machine.
    """
    for name in names:
        is_ours = name.rsplit(" ", 1)[0] not in peers_of(recipe)
        for recompute in (True, False) if is_ours else (False,):
            found = _one(replace(recipe, recompute=recompute), name, measure, room_mib)
            if found is not None:
                yield found


def _one(recipe: Recipe, name: str, measure: Measure, room_mib: float | None) -> MemoryUse | None:
    small: list[tuple[int, float]] = []
    for share in _FEWER:
        windows = max(1, recipe.batch // share)
        peak = measure(recipe.with_batch(windows), name)
        if peak is None:
            return None
        small.append((windows, peak))
    expected = extrapolated(small, recipe.batch)
    spare = available_mib() if room_mib is None else room_mib
    peak = measure(recipe, name) if spare is None or expected < _ROOM * spare else None
    use = MemoryUse(
        recipe=recipe.name,
        windows=recipe.batch,
        channels=recipe.channels,
        name=name,
        recompute=bool(recipe.recompute),
        peak_mib=expected if peak is None else peak,
    )
    return use if peak is not None else replace(use, extrapolated_from=tuple(small))


def extrapolated(points: Sequence[tuple[int, float]], windows: int) -> float:
    """Return the value at ``windows`` of the line through two points.

    Raises:
        ValueError: not two points of different windows.
    """
    (first, low), (second, high) = points
    if first == second:
        raise ValueError(f"a line needs two numbers of windows, got {first} twice")
    return low + (high - low) / (second - first) * (windows - first)


def table(uses: Sequence[MemoryUse]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows; a figure that was extrapolated says so, and from what."""
    titles = ["recipe", "batch", "who", "layers", "peak MiB", "how"]
    rows = [
        [
            use.recipe,
            f"{use.windows} x {use.channels}",
            use.name,
            "recomputed" if use.recompute else "kept",
            f"{use.peak_mib:.0f}",
            _how(use),
        ]
        for use in uses
    ]
    return titles, rows


def _how(use: MemoryUse) -> str:
    if not use.extrapolated_from:
        return "measured"
    points = ", ".join(f"{peak:.0f} at {windows}" for windows, peak in use.extrapolated_from)
    return f"extrapolated from {points} windows"
