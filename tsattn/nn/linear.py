"""Linear maps that are computed together with what stands beside them."""

# Hooks are private in torch, and carry no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def apply_together(x: Tensor, *maps: nn.Module) -> list[Tensor]:
    """Apply linear maps of one size to ``x``, as one product where all of them are plain."""
    plain = [linear for linear in maps if is_plain(linear)]
    if len(plain) < len(maps):
        return [linear(x) for linear in maps]
    weight = torch.cat([linear.weight for linear in plain])
    bias = torch.cat([linear.bias for linear in plain])
    return list(F.linear(x, weight, bias).chunk(len(maps), dim=-1))


def is_plain(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Say whether nobody replaced or parametrised the map, or watches its calls through a hook."""
    hooks = (linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks)
    return type(linear) is nn.Linear and not any(hooks)
