"""Quadratic logits of low rank in one operation."""

from tsattn.ops.low_rank.api import low_rank_logits

__all__ = ["low_rank_logits"]
