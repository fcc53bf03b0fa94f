"""Layers that are evaluated all at once, where batch norm is a fixed map and nobody watches."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tsattn.nn.encoder import EncoderLayer
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.linear import is_plain, is_watched
from tsattn.nn.norm import TokenBatchNorm
from tsattn.ops import Impl, LayerWeights, encode, encodes_at_once
from tsattn.tensors import Tokens


def evaluate_at_once(layers: Iterable[nn.Module], x_BLD: Tokens) -> Tensor | None:
    """Return the tokens after all layers, or None where the layers have to be called one by one.

    That is where gradients are recorded, where there is no compiled kernel, where a part is not
    ours or its calls are watched through a hook, and where another normalisation, order or
    feed-forward was chosen.

    Args:
        layers: the encoder's layers, in their order.
        x_BLD: the tokens.
    """
    found = list(layers)
    mine = [layer for layer in found if isinstance(layer, EncoderLayer)]
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(mine) < len(found):
        return None
    weights = [one for layer in mine if (one := _weights_of(layer)) is not None]
    residual_scores = _scores_are_residual(mine)
    if not mine or len(weights) < len(mine) or residual_scores is None or not _agree(mine):
        return None
    heads, activation = mine[0].attention.num_heads, mine[0].attention.value_activation
    if not encodes_at_once(x_BLD, weights, activation):
        return None
    return encode(
        x_BLD, weights, num_heads=heads, activation=activation, residual_scores=residual_scores
    )


def _agree(layers: Sequence[EncoderLayer]) -> bool:
    """Whether all attentions are alike, and whoever is wanted may be the compiled kernel."""
    kinds = {(a.num_heads, a.value_activation) for a in (layer.attention for layer in layers)}
    wanted = {Impl(layer.attention.impl) for layer in layers}
    return len(kinds) == 1 and wanted <= {Impl.AUTO, Impl.CPU}


def _scores_are_residual(layers: Sequence[EncoderLayer]) -> bool | None:
    """Whether every layer hands its scores on to the next; None where only some of them do."""
    kept = {layer.keep_scores for layer in layers[:-1]}
    return None if len(kept) > 1 else kept == {True}


def _weights_of(layer: EncoderLayer) -> LayerWeights | None:
    attention, fed = layer.attention, layer.feedforward
    first, last = layer.attention_norm, layer.feedforward_norm
    if layer.training or layer.prenorm or type(fed) is not FeedForward:
        return None
    if not isinstance(first, TokenBatchNorm) or not isinstance(last, TokenBatchNorm):
        return None
    projections = (attention.query, attention.key, attention.value)
    maps = (*projections, attention.out, fed.expand, fed.contract)
    others = (layer, attention, fed, first, last, fed.dropout, layer.dropout)
    if not all(map(is_plain, maps)) or any(part.training or is_watched(part) for part in others):
        return None
    return LayerWeights(
        torch.cat([part.weight for part in projections]),
        torch.cat([part.bias for part in projections]),
        attention.out.weight,
        attention.out.bias,
        fed.expand.weight,
        fed.expand.bias,
        fed.contract.weight,
        fed.contract.bias,
        *first.fixed_map(),
        *last.fixed_map(),
    )
