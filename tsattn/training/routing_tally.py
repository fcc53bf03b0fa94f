"""What one mixture did in an epoch: counted batch by batch, added up over processes, measured."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tsattn.nn.moe import Routing
from tsattn.nn.moe.statistics import (
    load_share,
    newly_chosen,
    selection_entropy,
    weight_entropies,
    winners_picked,
)
from tsattn.tensors import ExpertCounts

Measured = list[tuple[str, int | None, float]]
"""Measures by name, expert where there is one, and value."""

WATCHED_TOKENS = 1 << 14
"""Tokens of a layer whose experts are remembered from epoch to epoch, at most."""


class Assigned(NamedTuple):
    """The experts of the tokens of some windows.

    Attributes:
        windows_W: numbers of the windows, increasing.
        experts_WLK: the experts of each of their tokens.
    """

    windows_W: Tensor
    experts_WLK: Tensor


@dataclass
class Trained:
    """What a layer did with the tokens that it was trained on.

    Attributes:
        slots: slots where there is a capacity.
        dropped: those of them that were dropped.
        winners: winners of competitions.
        picked: those of them that the router picks too.
    """

    slots: int = 0
    dropped: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    winners: int = 0
    picked: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    def add(self, routing: Routing, *, limited: bool) -> None:
        """Count a batch; nothing is waited for.

        Args:
            routing: of the batch.
            limited: whether the layer has a capacity.
        """
        if limited:
            self.slots += routing.experts_NK.numel()
            self.dropped = self.dropped.to(routing.dropped.device) + routing.dropped
        if routing.competed_NK is not None:
            picked = winners_picked(routing.logits_NE, routing.competed_NK, routing.experts_NK)
            self.winners += picked.numel()
            self.picked = self.picked.to(picked.device) + picked.sum()

    def measured(self) -> Measured:
        """Return ``dropped`` and ``router_agreement``, where there is something to say."""
        found: Measured = []
        if self.slots:
            found.append(("dropped", None, self.dropped.item() / self.slots))
        if self.winners:
            found.append(("router_agreement", None, self.picked.item() / self.winners))
        return found


@dataclass
class Validated:
    """What a layer did with the validation tokens.

    Attributes:
        counts_E: slots of each expert.
        entropy: sum over tokens of the entropies of their weights, in bits.
        tokens: number of tokens.
        watched: experts of the tokens of watched windows, batch by batch.
    """

    counts_E: ExpertCounts
    entropy: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    tokens: int = 0
    watched: list[Assigned] = field(default_factory=list)

    def add(self, routing: Routing, index_B: Tensor, num_windows: int) -> None:
        """Count a batch, and remember the experts of windows that are watched.

        Args:
            routing: of the batch.
            index_B: numbers of its windows.
            num_windows: how many validation windows there are.
        """
        entropy = weight_entropies(routing.weights_NK).sum()
        self.counts_E = self.counts_E.to(entropy.device) + routing.counts_E
        self.entropy = self.entropy.to(entropy.device) + entropy
        self.tokens += len(routing.experts_NK)
        length, rest = divmod(len(routing.experts_NK), len(index_B))
        if rest:
            return  # tokens that belong to no single window cannot be found again
        is_watched_B = torch.isin(index_B.cpu(), watched_windows(num_windows, length))
        if is_watched_B.any():
            experts_BLK = routing.experts_NK.unflatten(0, (len(index_B), length))
            kind = torch.uint8 if len(self.counts_E) <= 256 else torch.int16
            mine = experts_BLK[is_watched_B.to(experts_BLK.device)].to(kind).cpu()
            self.watched.append(Assigned(index_B.cpu()[is_watched_B], mine))

    def assigned(self) -> Assigned | None:
        """Return the experts of all tokens that were watched, in the order of their windows."""
        if not self.watched:
            return None
        windows_W = torch.cat([part.windows_W for part in self.watched])
        experts_WLK = torch.cat([part.experts_WLK for part in self.watched])
        order = windows_W.argsort()
        return Assigned(windows_W[order], experts_WLK[order])

    def measured(self) -> Measured:
        """Return the load of each expert and the two entropies."""
        if not self.tokens:
            return []
        load = load_share(self.counts_E).tolist()
        return [
            *(("load", expert, share) for expert, share in enumerate(load)),
            ("selection_entropy", None, selection_entropy(self.counts_E)),
            ("weight_entropy", None, self.entropy.item() / self.tokens),
        ]


def watched_windows(num_windows: int, tokens_per_window: int) -> Tensor:
    """Return windows spread evenly over all, few enough for `WATCHED_TOKENS`, one at least."""
    number = max(1, min(num_windows, WATCHED_TOKENS // tokens_per_window))
    return torch.linspace(0, num_windows - 1, number, dtype=torch.float64).round().long()


def changes(before: Assigned | None, after: Assigned | None) -> Measured:
    """Return ``change_rate`` and ``changed_tokens`` over the windows that both have.

    A layer that gives its tokens another number of experts than before has none of them.
    """
    if before is None or after is None:
        return []
    if before.experts_WLK.shape[1:] != after.experts_WLK.shape[1:]:
        return []
    kept, now = (
        one.experts_WLK[torch.isin(one.windows_W, other.windows_W)].flatten(0, 1).long()
        for one, other in ((before, after), (after, before))
    )
    if not len(now):
        return []
    new_NK = newly_chosen(kept, now)
    return [
        ("change_rate", None, new_NK.double().mean().item()),
        ("changed_tokens", None, new_NK.any(dim=1).double().mean().item()),
    ]


def total_trained(parts: Iterable[Trained]) -> Trained:
    """Return the sum over processes."""
    total = Trained()
    for part in parts:
        total.slots += part.slots
        total.winners += part.winners
        total.dropped = total.dropped + part.dropped.cpu()
        total.picked = total.picked + part.picked.cpu()
    return total


def total_validated(parts: Iterable[Validated]) -> Validated:
    """Return the sum over processes, and the windows that all of them watched."""
    first, *others = parts
    counts_E, entropy = first.counts_E.cpu(), first.entropy.cpu()
    total = Validated(counts_E, entropy, first.tokens, list(first.watched))
    for part in others:
        total.counts_E = total.counts_E + part.counts_E.cpu()
        total.entropy = total.entropy + part.entropy.cpu()
        total.tokens += part.tokens
        total.watched += part.watched
    return total
