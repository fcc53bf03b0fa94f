"""Linear maps that are computed together with what stands beside them."""

# Hooks are private in torch, and carry no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def apply_together(x: Tensor, *maps: nn.Module) -> Tensor:
    """Apply linear maps to ``x``, results side by side; as one product where all are plain."""
    plain = [linear for linear in maps if is_plain(linear)]
    if len(plain) < len(maps):
        return torch.cat([linear(x) for linear in maps], dim=-1)
    if len(plain) == 1:
        return plain[0](x)
    weight = torch.cat([linear.weight for linear in plain])
    bias = torch.cat([linear.bias for linear in plain])
    return F.linear(x, weight, bias)


def is_plain(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Say whether nobody replaced or parametrised the map, or watches its calls through a hook."""
    hooks = (linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks)
    return type(linear) is nn.Linear and not any(hooks)
