"""Linear maps of many tokens."""

from tsattn.ops.linear.api import linear

__all__ = ["linear"]
