"""Parts that nobody changed or watches, so that an operation may do their work in their place."""

# Hooks are private in torch, and carry no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from typing import TypeGuard, TypeVar

from torch import nn
from torch.nn.modules import module

_Part = TypeVar("_Part", bound=nn.Module)


def is_as_built(part: nn.Module, *kinds: type[_Part]) -> TypeGuard[_Part]:
    """Say whether an operation may stand in for the call of this module.

    It may where the module is of one of these kinds and no subclass, which is also what a
    parametrised one is; where it has all weights and statistics that its kind can have; and where
    its calls are not watched.

    Args:
        part: the module.
        kinds: the classes that the operation computes the same as.
    """
    return type(part) in kinds and _is_whole(part) and not is_watched(part)


def is_watched(part: nn.Module) -> bool:
    """Say whether somebody watches the calls of this module, or put a function in their place.

    That is through a hook, of the module or of all modules, or a ``forward`` of the instance.
    """
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or module._global_forward_hooks
        or module._global_forward_pre_hooks
        or module._global_backward_hooks
        or module._global_backward_pre_hooks
        or "forward" in part.__dict__
    )


def _is_whole(part: nn.Module) -> bool:
    """Say whether the module has all its tensors: torch makes those None that it is to lack."""
    for tensors in (part._parameters, part._buffers):
        for tensor in tensors.values():
            if tensor is None:
                return False
    return True
