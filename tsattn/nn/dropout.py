"""Dropout, alone and with what stands before and after it."""

from functools import reduce

from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.as_built import is_as_built
from tsattn.ops import dropout, gelu_dropout


class Dropout(nn.Dropout):
    """Zero each element with probability ``p`` in training and scale the rest by ``1 / (1 - p)``.

    On CPUs the compiled kernels of `tsattn.ops` draw the masks, elsewhere torch does.
    """

    @property
    def rate(self) -> float:
        """The probability in force: ``p`` in training, 0 otherwise."""
        return self.p if self.training else 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Return ``drop(input)``."""
        return dropout(input, self.rate)


def drop_outside(x: Tensor, *dropouts: nn.Module) -> tuple[Tensor, float]:
    """Return what to drop, and the rate at which the operation that comes next is to drop it.

    Dropouts that are as built are left to that operation, as the one of their joint rate. Where one
    of them is watched or replaced, all are called here, and nothing is left to drop.

    Args:
        x: what goes into the dropouts.
        dropouts: one after the other.
    """
    rates = [part.rate for part in dropouts if is_as_built(part, Dropout)]
    if len(rates) == len(dropouts):
        return x, reduce(joint_rate, rates)
    for part in dropouts:
        x = part(x)
    return x, 0.0


def drop_after_gelu(dropout: nn.Module, hidden: Tensor) -> Tensor:
    """Return ``dropout(gelu(hidden))``, in one operation where the dropout is as built."""
    if is_as_built(dropout, Dropout):
        return gelu_dropout(hidden, dropout.rate)
    return dropout(F.gelu(hidden))


def joint_rate(first: float, second: float) -> float:
    """Return the rate of the one dropout that two independent ones in a row amount to.

    The product of two independent masks is a mask: an element survives both with probability
    ``(1 - first) (1 - second)``, and both scale by the inverse of that.
    """
    return 1 - (1 - first) * (1 - second)
