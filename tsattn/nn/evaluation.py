"""Layers that are evaluated all at once, where batch norm is a fixed map and nobody watches."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tsattn.nn.as_built import is_as_built
from tsattn.nn.attention import MultiHeadActiveAttention
from tsattn.nn.dropout import Dropout
from tsattn.nn.encoder import EncoderLayer
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.linear import LINEAR
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
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    layers = list(layers)
    mine = [layer for layer in layers if isinstance(layer, EncoderLayer) and _is_as_built(layer)]
    weights = [one for layer in mine if (one := _weights_of(layer)) is not None]
    residual_scores = _scores_are_residual(mine)
    if not layers or len(weights) < len(layers) or residual_scores is None or not _agree(mine):
        return None
    heads, activation = mine[0].attention.num_heads, mine[0].attention.value_activation
    if not encodes_at_once(x_BLD, weights, activation):
        return None
    return encode(
        x_BLD, weights, num_heads=heads, activation=activation, residual_scores=residual_scores
    )


def _agree(layers: Sequence[EncoderLayer]) -> bool:
    """Whether all attentions are alike, and whoever is wanted may be the compiled kernel."""
    attentions = [layer.attention for layer in layers]
    if not all(isinstance(a.value_activation, str) for a in attentions):
        return False
    kinds = {(a.num_heads, a.value_activation) for a in attentions}
    return len(kinds) == 1 and {Impl(a.impl) for a in attentions} <= {Impl.AUTO, Impl.CPU}


def _scores_are_residual(layers: Sequence[EncoderLayer]) -> bool | None:
    """Whether every layer hands its scores on to the next; None where only some of them do."""
    kept = {layer.keep_scores for layer in layers[:-1]}
    return None if len(kept) > 1 else kept == {True}


def _is_as_built(layer: EncoderLayer) -> bool:
    """Whether every part of the layer is as built, and evaluates."""
    attention, fed = layer.attention, layer.feedforward
    kinds: list[tuple[nn.Module, type[nn.Module]]] = [
        (layer, EncoderLayer),
        (attention, MultiHeadActiveAttention),
        (fed, FeedForward),
        (layer.attention_norm, TokenBatchNorm),
        (layer.feedforward_norm, TokenBatchNorm),
        (layer.attention_dropout, Dropout),
        (layer.dropout, Dropout),
        (getattr(fed, "dropout", fed), Dropout),
    ]
    if layer.prenorm or any(part.training for part, _ in kinds):
        return False
    return all(is_as_built(part, kind) for part, kind in kinds)


def _weights_of(layer: EncoderLayer) -> LayerWeights | None:
    attention, fed = layer.attention, layer.feedforward
    norms = (layer.attention_norm, layer.feedforward_norm)
    assert isinstance(fed, FeedForward)
    projections = (attention.query, attention.key, attention.value)
    maps = (*projections, attention.out, fed.expand, fed.contract)
    if not all(is_as_built(part, *LINEAR) for part in maps):
        return None
    fixed = [norm.fixed_map() for norm in norms if isinstance(norm, TokenBatchNorm)]
    (scale, shift), (last_scale, last_shift) = fixed
    return LayerWeights(
        torch.cat([part.weight for part in projections]),
        torch.cat([part.bias for part in projections]),
        attention.out.weight,
        attention.out.bias,
        fed.expand.weight,
        fed.expand.bias,
        fed.contract.weight,
        fed.contract.bias,
        scale,
        shift,
        last_scale,
        last_shift,
    )
