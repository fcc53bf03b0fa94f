"""Active attention: softmax(Q K' / sqrt(d)) sigma(V)."""

from tsattn.ops.attention.api import active_attention

__all__ = ["active_attention"]
