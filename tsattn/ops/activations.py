"""The nonlinearities of the value path.

Source: Table 2 of the active-attention paper, which calls the identity "Linear". GELU is the exact
one, with the error function.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

ValueActivation = str | Callable[[Tensor], Tensor]
"""One of the six names, or any elementwise callable or module."""


def _identity(x: Tensor) -> Tensor:
    return x


VALUE_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "identity": _identity,
        "relu": torch.relu,
        "gelu": F.gelu,
        "silu": F.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
)


def as_function(activation: ValueActivation) -> Callable[[Tensor], Tensor]:
    """Return the function behind a name; a callable is returned as it is.

    Args:
        activation: one of `VALUE_ACTIVATIONS`, or a callable that keeps the shape of its argument.

    Raises:
        ValueError: the name is not one of the six.
        TypeError: neither a name nor a callable.
    """
    if isinstance(activation, str):
        if activation not in VALUE_ACTIVATIONS:
            known = ", ".join(VALUE_ACTIVATIONS)
            raise ValueError(
                f"unknown value_activation {activation!r}; expected one of {known}, or a callable"
            )
        return VALUE_ACTIVATIONS[activation]
    if not callable(activation):
        raise TypeError(
            f"value_activation must be a name or a callable, got {type(activation).__name__}"
        )
    return activation


def activate(activation: ValueActivation, values: Tensor) -> Tensor:
    """Apply an activation to projected values.

    Args:
        activation: one of `VALUE_ACTIVATIONS`, or a callable.
        values: any shape.

    Raises:
        ValueError: the name is not one of the six, or the callable changes the shape.
    """
    activated = as_function(activation)(values)
    if activated.shape != values.shape:
        raise ValueError(
            f"value_activation {activation!r} must work elementwise, but it turned values of "
            f"{list(values.shape)} into {list(activated.shape)}"
        )
    return activated
