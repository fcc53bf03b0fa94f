"""The feed-forward of a layer in one operation."""

from tsattn.ops.feedforward.api import feedforward

__all__ = ["feedforward"]
