"""From a gate's logits to sorted slots."""

from tsattn.ops.routing.api import count_slots, largest, softmax_rows, sort_slots

__all__ = ["count_slots", "largest", "softmax_rows", "sort_slots"]
