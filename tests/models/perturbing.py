"""Networks away from their initial state, where symmetries and zeros would hide mistakes."""

from typing import Any, TypeVar

import torch
from torch import nn

from tsattn.models import ForecastNetwork

M = TypeVar("M", bound=nn.Module)
N = TypeVar("N", bound=ForecastNetwork)


def perturbed(network: M) -> M:
    """Move all weights and running statistics by random amounts, in place."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(17)
    return network


def rebuilt(network: N, **changes: Any) -> N:
    """Build the network again with some arguments changed, the same weights, and float64."""
    arguments: dict[str, Any] = {**network.init_args, **changes}
    again = type(network)(**arguments).double().eval()
    again.load_state_dict(network.state_dict())
    return again
