"""Normalisations fused with the addition and the dropout before them."""

from tsattn.ops.norm.api import BatchNormed, add_dropout_batch_norm

__all__ = ["BatchNormed", "add_dropout_batch_norm"]
