"""Timings of whole networks: optimiser step, forward pass and evaluation beside the peers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.bench import gate
from tsattn.bench.arithmetic import BACKWARD, forward_gflop
from tsattn.bench.ceilings import ceiling, product_rates
from tsattn.bench.peers import Peer, ours, peers_of
from tsattn.bench.recipes import Recipe, with_impl
from tsattn.bench.timing import Spread, measure, speed_up
from tsattn.errors import ConfigError

PRECISIONS = ("float32", "bf16")
PHASES = ("step", "forward", "backward", "evaluation", "one window")
_LEARNING_RATE = 1e-4
Runs = Mapping[str, Callable[[], None]]


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


def contender(recipe: Recipe, name: str) -> Peer:
    """Build what a name means, ready to run on one batch of the recipe.

    Raises:
        ConfigError: the recipe has no such peer.
        MissingExtraError: the peer's package is not installed.
    """
    who, _ = name.rsplit(" ", 1)
    batch = recipe.draw()
    peers = peers_of(recipe)
    if who in peers:
        return peers[who](recipe, batch)
    try:
        return ours(with_impl(recipe.network(), who), batch)
    except ValueError as error:
        raise ConfigError(f"{recipe.name} has neither a peer nor an impl {who!r}") from error


def runs_of(made: Peer, precision: str) -> Runs:
    """Return the phases of a network as functions without arguments.

    ``loss`` is what has to run before every ``backward``.
    """
    losses: list[Tensor] = []
    optimizer = torch.optim.Adam(made.module.parameters(), lr=_LEARNING_RATE)

    def forward() -> Tensor:
        made.module.train()
        with _autocast(precision):
            return made.forecast()

    def loss() -> None:
        optimizer.zero_grad()
        losses[:] = [F.mse_loss(forward().float(), made.target)]

    def backward() -> None:
        losses.pop().backward()

    def step() -> None:
        loss()
        backward()
        optimizer.step()

    def evaluate() -> None:
        made.module.eval()
        with torch.inference_mode(), _autocast(precision):
            made.forecast()

    return {
        "step": step,
        "forward": lambda: _ignore(forward()),
        "loss": loss,
        "backward": backward,
        "evaluation": evaluate,
    }


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
    memory: Callable[[Recipe, str], tuple[float, float] | None],
) -> Iterator[TrainTiming]:
    """Time all contenders of a recipe in turn.

    Args:
        recipe: the recipe.
        names: see `names_of`.
        rounds: how often each is timed.
        memory: peak and growth in MiB of a contender's training, or None.
    """
    work = operations(recipe)
    rates = product_rates(recipe.products)
    needed = {name: memory(recipe, name) for name in names}
    own_peers = [name for name in names if name.rsplit(" ", 1)[0] in peers_of(recipe)]
    for phase, runs, before in _phases(recipe, names):
        seconds = measure(runs, rounds, before=before)
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


def _phases(recipe: Recipe, names: Sequence[str]) -> Iterator[tuple[str, Runs, Runs | None]]:
    """Yield every phase with its contenders, and what has to run before each of them.

    The batch is laid out before anything is timed.
    """

    def built(size: Recipe) -> dict[str, Runs]:
        return {name: runs_of(contender(size, name), name.rsplit(" ", 1)[1]) for name in names}

    def of(phase: str) -> Runs:
        return {name: run[phase] for name, run in runs.items()}

    runs = built(recipe)
    for phase in PHASES[:-1]:
        yield phase, of(phase), of("loss") if phase == "backward" else None
    runs = built(recipe.with_batch(1))
    yield PHASES[-1], of("evaluation"), None


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


def _autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def _ignore(_: Tensor) -> None:
    """Take a result that only had to be computed."""
