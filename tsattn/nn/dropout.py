"""Dropout, alone and with what stands before and after it."""

from torch import Tensor, nn

from tsattn.ops import add_dropout, dropout, gelu_dropout


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

    def added_to(self, residual: Tensor, branch: Tensor) -> Tensor:
        """Return ``residual + drop(branch)``."""
        return add_dropout(residual, branch, self.rate)

    def after_gelu(self, hidden: Tensor) -> Tensor:
        """Return ``drop(gelu(hidden))``."""
        return gelu_dropout(hidden, self.rate)


def joint_rate(first: float, second: float) -> float:
    """Return the rate of the one dropout that two independent ones in a row amount to.

    The product of two independent masks is a mask: an element survives both with probability
    ``(1 - first) (1 - second)``, and both scale by the inverse of that.
    """
    return 1 - (1 - first) * (1 - second)
