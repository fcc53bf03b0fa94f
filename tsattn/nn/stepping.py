"""Modules that change with the optimiser's steps, beside what the optimiser changes."""

from torch import nn


class Stepping(nn.Module):
    """A module that is told when the optimiser has taken a step, and never in evaluation."""

    def after_step(self) -> None:
        """Do what is due after an optimiser step."""
        raise NotImplementedError


def after_step(network: nn.Module) -> None:
    """Tell every part of a network that is a `Stepping`; a training loop calls it."""
    for module in network.modules():
        if isinstance(module, Stepping):
            module.after_step()
