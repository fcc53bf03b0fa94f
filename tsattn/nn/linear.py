"""Linear maps that are computed together with what stands beside them."""

import torch
from torch import Tensor, nn

from tsattn.nn.as_built import is_as_built
from tsattn.ops import linear


class Linear(nn.Linear):
    """``x W' + b`` through `tsattn.ops.linear`; otherwise torch's own module."""

    def forward(self, input: Tensor) -> Tensor:
        """Map the last axis."""
        return linear(input, self.weight, self.bias)


LINEAR = (Linear, nn.Linear)
"""What computes ``x W' + b``."""


def apply_together(x: Tensor, *maps: nn.Module) -> Tensor:
    """Apply linear maps to ``x``, results side by side; as one product where all are as built."""
    plain = [part for part in maps if is_as_built(part, *LINEAR)]
    if len(plain) < len(maps):
        return torch.cat([part(x) for part in maps], dim=-1)
    if len(plain) == 1:
        return plain[0](x)
    weight = torch.cat([part.weight for part in plain])
    bias = torch.cat([part.bias for part in plain])
    return linear(x, weight, bias)
