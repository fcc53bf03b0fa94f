"""What an encoder layer is made of."""

from typing import NamedTuple

from torch import Tensor


class LayerWeights(NamedTuple):
    """The weights of one layer, D wide with F hidden units.

    Either branch ends in what a batch normalisation is in evaluation, ``x * scale + shift``.
    """

    projection: Tensor
    """Queries, keys and values, [3 D, D]."""
    projection_bias: Tensor
    out: Tensor
    """From the heads back to tokens, [D, D]."""
    out_bias: Tensor
    expand: Tensor
    """[F, D]"""
    expand_bias: Tensor
    contract: Tensor
    """[D, F]"""
    contract_bias: Tensor
    attention_scale: Tensor
    attention_shift: Tensor
    feedforward_scale: Tensor
    feedforward_shift: Tensor
