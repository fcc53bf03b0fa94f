"""Normalisations fused with the addition and the dropout before them."""

from tsattn.ops.norm.api import BatchNormed, add_dropout_batch_norm
from tsattn.ops.norm.layer_norm import add_dropout_layer_norm

__all__ = ["BatchNormed", "add_dropout_batch_norm", "add_dropout_layer_norm"]
