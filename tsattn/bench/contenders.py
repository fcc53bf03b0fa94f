"""Everything that trains: our networks and the peers, with the phases that are timed."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.bench.peers import Peer, ours, peers_of
from tsattn.bench.recipes import Recipe, with_impl
from tsattn.errors import ConfigError

_LEARNING_RATE = 1e-4
Runs = Mapping[str, Callable[[], None]]


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


def _autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def _ignore(_: Tensor) -> None:
    """Take a result that only had to be computed."""
