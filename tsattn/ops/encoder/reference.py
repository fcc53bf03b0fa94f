"""An encoder in evaluation in plain torch: the oracle."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.activations import ValueActivation
from tsattn.ops.attention.self_attention import self_attention
from tsattn.ops.encoder.layers import LayerWeights
from tsattn.ops.impl import Impl


def encode(
    x_BLD: Tensor,
    layers: Sequence[LayerWeights],
    num_heads: int,
    activation: ValueActivation,
    residual_scores: bool,
) -> Tensor:
    """Apply all layers, one operation after the other."""
    projections: list[Tensor] = []
    for w in layers:
        own = F.linear(x_BLD, w.projection, w.projection_bias)
        projections = [*projections, own] if residual_scores else [own]
        mixed = self_attention(
            projections, num_heads=num_heads, activation=activation, impl=Impl.REFERENCE
        ).output
        attended = F.linear(mixed, w.out, w.out_bias)
        x_BLD = torch.addcmul(w.attention_shift, x_BLD + attended, w.attention_scale)
        hidden = F.gelu(F.linear(x_BLD, w.expand, w.expand_bias))
        fed = F.linear(hidden, w.contract, w.contract_bias)
        x_BLD = torch.addcmul(w.feedforward_shift, x_BLD + fed, w.feedforward_scale)
    return x_BLD
