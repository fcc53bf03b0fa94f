"""Tells which steps of a training competed."""

from typing import Any

import pytest
from torch import Tensor

from tsattn.nn.moe import CompeteSMoE


def watch_competitions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows with every call of a competing mixture: whether it competed."""
    competed: list[bool] = []
    forward = CompeteSMoE.forward

    def watched(self: CompeteSMoE, x: Tensor) -> Any:
        fed = forward(self, x)
        competed.append(fed.routing.competed_NK is not None)
        return fed

    monkeypatch.setattr(CompeteSMoE, "forward", watched)
    return competed
