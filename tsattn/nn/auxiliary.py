"""Auxiliary losses on their way from a layer to the forecast."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

Losses = Mapping[str, Tensor]
"""Losses by name, before their weights."""


class Fed(NamedTuple):
    """What a feed-forward made of tokens.

    Attributes:
        output: tokens.
        losses: auxiliary losses by name, before their weights.
        routing: of a mixture, who worked for which token (`tsattn.nn.moe.Routing`).
    """

    output: Tensor
    losses: Losses
    routing: Any = None


def feed(feedforward: nn.Module, x: Tensor) -> Fed:
    """Apply a feed-forward, one that returns tokens alone or one that returns `Fed`."""
    fed = feedforward(x)
    return fed if isinstance(fed, Fed) else Fed(fed, {})


def summed(*parts: Losses) -> dict[str, Tensor]:
    """Return the sum of losses by name."""
    total: dict[str, Tensor] = {}
    for part in parts:
        for name, loss in part.items():
            total[name] = total[name] + loss if name in total else loss
    return total


def loss_weights(network: nn.Module) -> dict[str, float]:
    """Return the weights that a network's layers give to their auxiliary losses, by name.

    A layer states them as ``loss_weights``. What nobody states has the weight 1.

    Raises:
        ValueError: two layers that weigh one loss differently.
    """
    weights: dict[str, float] = {}
    for module in network.modules():
        stated: dict[str, float] = getattr(module, "loss_weights", {})
        for name, weight in stated.items():
            if weights.setdefault(name, weight) != weight:
                raise ValueError(
                    f"the layers of {type(network).__name__} weigh the loss {name!r} with "
                    f"{weights[name]} and with {weight}; give it one weight"
                )
    return weights
