"""Timings of whole networks: optimiser step, forward pass and evaluation beside the peers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from tsattn.bench import gate
from tsattn.bench.arithmetic import BACKWARD, forward_gflop
from tsattn.bench.ceilings import ceiling, product_rates
from tsattn.bench.peers import peers_of
from tsattn.bench.recipes import Recipe
from tsattn.bench.timing import Spread, speed_up, take_turns
from tsattn.bench.worker import PHASES, workers

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class TrainTiming:
    """One network in one phase.

    Attributes:
        recipe: name of the recipe.
        phase: ``step`` (forwards, backwards, Adam), ``forward`` (training mode), ``backward``
            (after such a forward pass), ``evaluation`` (no dropout, no autograd) or ``one window``
            (evaluation of a single window).
        name: ``auto bf16``, ``reference float32``, ``neuralforecast float32``, ...
        milliseconds: time of one batch.
        speed_ups: times faster than each peer, by its name; empty for a peer.
        gflops: achieved 1e9 operations per second, those of `tsattn.bench.arithmetic`.
        share: of what the recipe's dense products alone reach here, in the same dtype.
        peak_mib: largest resident memory of a process that only trains this; None: not measured.
        growth_mib: how much of that came with the training itself.
    """

    recipe: str
    phase: str
    name: str
    milliseconds: Spread
    speed_ups: dict[str, Spread]
    gflops: float
    share: float
    peak_mib: float | None = None
    growth_mib: float | None = None


def names_of(
    implementations: Sequence[str], precisions: Sequence[str], peers: Sequence[str]
) -> list[str]:
    """Return the names of everything that is timed: ours in every precision, peers in float32."""
    own = [f"{impl} {precision}" for impl in implementations for precision in precisions]
    return own + [f"{peer} float32" for peer in peers]


def peer_checks(recipe: Recipe, peers: Sequence[str]) -> Iterator[gate.Check]:
    """Check that the peers which hold our weights give our forecast."""
    small = recipe.with_batch(2)
    batch = small.draw()
    with torch.inference_mode():
        expected = recipe.network().eval()(*batch.inputs).mean
        for peer in peers:
            made = peers_of(recipe)[peer](small, batch)
            if made.same_mathematics:
                made.module.eval()
                forecast = made.as_ours(made.forecast())
                yield gate.same_answer(f"{recipe.name} {peer}", forecast, expected)


def time_training(
    recipe: Recipe,
    names: Sequence[str],
    *,
    rounds: int,
    threads: int,
    memory: Callable[[Recipe, str], tuple[float, float] | None],
    phases: Sequence[str] = PHASES,
) -> Iterator[TrainTiming]:
    """Time all contenders of a recipe in turn, each in a process of its own.

    Args:
        recipe: the recipe.
        names: see `names_of`.
        rounds: how often each is timed.
        threads: threads of torch.
        memory: peak and growth in MiB of a contender's training, or None.
        phases: among `PHASES`.
    """
    work = operations(recipe)
    rates = product_rates(recipe.products)
    needed = {name: memory(recipe, name) for name in names}
    own_peers = [name for name in names if name.rsplit(" ", 1)[0] in peers_of(recipe)]
    for phase, seconds in _seconds(recipe, names, phases, rounds, threads):
        for name, taken in seconds.items():
            peers = [] if name in own_peers else own_peers
            gflops = work[phase] / Spread.of(taken).median
            dtype = "bfloat16" if name.endswith("bf16") else "float32"
            peak = needed[name] if phase == "step" else None
            yield TrainTiming(
                recipe=recipe.name,
                phase=phase,
                name=name,
                milliseconds=Spread.of([1e3 * s for s in taken]),
                speed_ups={peer: speed_up(taken, seconds[peer]) for peer in peers},
                gflops=gflops,
                share=gflops / ceiling(rates, dtype),
                peak_mib=peak[0] if peak else None,
                growth_mib=peak[1] if peak else None,
            )


def _seconds(
    recipe: Recipe, names: Sequence[str], phases: Sequence[str], rounds: int, threads: int
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    with workers(recipe, names, threads) as team:
        for phase in phases:
            samples = {name: partial(worker.sample, phase) for name, worker in team.items()}
            yield phase, take_turns(samples, rounds)


def operations(recipe: Recipe) -> dict[str, float]:
    """Return the arithmetic of each phase, in 1e9 operations."""
    forward = forward_gflop(recipe)
    return {
        "step": (1 + BACKWARD) * forward,
        "forward": forward,
        "backward": BACKWARD * forward,
        "evaluation": forward,
        "one window": forward / recipe.batch,
    }
