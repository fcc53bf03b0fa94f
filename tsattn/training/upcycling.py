"""Starting a network of mixtures from the checkpoint of a dense one."""

from pathlib import Path
from typing import Any

from tsattn.errors import CheckpointError
from tsattn.models import ForecastNetwork
from tsattn.nn.moe import upcycle
from tsattn.training.checkpoint import (
    RECORD,
    describe_network,
    differences,
    read_checkpoint,
    weights_of,
)


def upcycle_checkpoint(network: ForecastNetwork, path: str | Path) -> dict[str, Any]:
    """Start a network of mixtures from the checkpoint of the same network without them.

    See `tsattn.nn.moe.upcycle`. Call it before training; the optimiser starts anew.

    Args:
        network: with mixtures whose experts are as wide as the dense feed-forwards.
        path: checkpoint of the dense network.

    Returns:
        What the checkpoint's record says of the data it was trained on.

    Raises:
        CheckpointError: the checkpoint cannot be read, its network differs in more than the
            feed-forward, or has another shape; with what differs.
    """
    content = read_checkpoint(path)
    theirs, ours = content[RECORD]["network"], describe_network(network)
    if theirs["class"] != ours["class"]:
        raise CheckpointError(
            f"{path} holds a {theirs['class']}, from which no {ours['class']} can start"
        )
    if differing := differences(_dense(theirs["arguments"]), _dense(ours["arguments"])):
        raise CheckpointError(
            f"{path} holds another {ours['class']} than the one to start: {'; '.join(differing)}; "
            "train the dense network with the same recipe"
        )
    try:
        upcycle(network, weights_of(content))
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be upcycled: {error}") from error
    return content[RECORD].get("data") or {}


def _dense(arguments: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if name != "feedforward"}
