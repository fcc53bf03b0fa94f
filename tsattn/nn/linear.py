"""Linear maps that are computed together with what stands beside them."""

# Hooks are private in torch, and carry no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from tsattn.ops import linear


class Linear(nn.Linear):
    """``x W' + b`` through `tsattn.ops.linear`; otherwise torch's own module."""

    def forward(self, input: Tensor) -> Tensor:
        """Map the last axis."""
        return linear(input, self.weight, self.bias)


def apply_together(x: Tensor, *maps: nn.Module) -> Tensor:
    """Apply linear maps to ``x``, results side by side; as one product where all are plain."""
    plain = [part for part in maps if is_plain(part)]
    if len(plain) < len(maps):
        return torch.cat([part(x) for part in maps], dim=-1)
    if len(plain) == 1:
        return plain[0](x)
    weight = torch.cat([part.weight for part in plain])
    bias = torch.cat([part.bias for part in plain])
    return linear(x, weight, bias)


def is_plain(part: nn.Module) -> TypeGuard[nn.Linear]:
    """Say whether nobody replaced or parametrised the map, or watches its calls through a hook."""
    return type(part) in (nn.Linear, Linear) and not is_watched(part)


def is_watched(part: nn.Module) -> bool:
    """Say whether somebody watches the calls of this module, or put a function in their place.

    That is through a hook, of the module or of all modules, or a ``forward`` of the instance.
    """
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    everywhere = (
        module._global_forward_hooks,
        module._global_forward_pre_hooks,
        module._global_backward_hooks,
    )
    return any(hooks) or any(everywhere) or "forward" in vars(part)
