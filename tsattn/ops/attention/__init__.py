"""Active attention: softmax(Q K' / sqrt(d)) sigma(V)."""

from tsattn.ops.attention.api import active_attention
from tsattn.ops.attention.self_attention import self_attention

__all__ = ["active_attention", "self_attention"]
