"""Functions on tensors, each with a plain-torch reference that defines what is correct."""

from tsattn.ops.activations import VALUE_ACTIVATIONS, ValueActivation
from tsattn.ops.attention import active_attention, self_attention
from tsattn.ops.build import plain_torch
from tsattn.ops.dropout import add_dropout, dropout, gelu_dropout
from tsattn.ops.encoder import LayerWeights, encode, encodes_at_once
from tsattn.ops.experts import expert_feedforward
from tsattn.ops.feedforward import feedforward
from tsattn.ops.impl import Impl, availability
from tsattn.ops.linear import linear
from tsattn.ops.low_rank import low_rank_logits
from tsattn.ops.norm import add_dropout_batch_norm, add_dropout_layer_norm
from tsattn.ops.routing import count_slots, largest, softmax_rows, sort_slots

__all__ = [
    "VALUE_ACTIVATIONS",
    "Impl",
    "LayerWeights",
    "ValueActivation",
    "active_attention",
    "add_dropout",
    "add_dropout_batch_norm",
    "add_dropout_layer_norm",
    "availability",
    "count_slots",
    "dropout",
    "encode",
    "encodes_at_once",
    "expert_feedforward",
    "feedforward",
    "gelu_dropout",
    "largest",
    "linear",
    "low_rank_logits",
    "plain_torch",
    "self_attention",
    "softmax_rows",
    "sort_slots",
]
