"""Which dropouts a module passes, in order, with the rates they have."""

import pytest
from torch import Tensor, nn

from tsattn.nn.dropout import Dropout


def dropouts_in_order(module: nn.Module, *inputs: Tensor) -> list[tuple[str, float]]:
    """Run a module and name its dropouts in the order in which their rates were asked for."""
    passed: list[tuple[str, float]] = []
    names = {part: name for name, part in module.named_modules()}

    def watched(dropout: Dropout) -> float:
        rate = dropout.p if dropout.training else 0.0
        passed.append((names[dropout], rate))
        return rate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dropout, "rate", property(watched))
        module(*inputs)
    return passed
