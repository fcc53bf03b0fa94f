"""Feed-forward experts with the choice of them in one operation."""

from tsattn.ops.experts.api import expert_feedforward

__all__ = ["expert_feedforward"]
