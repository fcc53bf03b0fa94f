"""Dropout whose mask is drawn from a counter, in the forward pass and again in the backward."""

from tsattn.ops.dropout.api import add_dropout, dropout, gelu_dropout

__all__ = ["add_dropout", "dropout", "gelu_dropout"]
