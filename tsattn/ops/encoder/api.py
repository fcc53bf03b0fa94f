"""A whole encoder in evaluation: who computes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tsattn.ops import build
from tsattn.ops.activations import ValueActivation
from tsattn.ops.encoder import fused_cpu, reference
from tsattn.ops.encoder.layers import LayerWeights
from tsattn.ops.impl import Impl, as_impl

__all__ = ["LayerWeights", "encode", "encodes_at_once"]


def encode(
    x_BLD: Tensor,
    layers: Sequence[LayerWeights],
    *,
    num_heads: int,
    activation: ValueActivation = "identity",
    residual_scores: bool = True,
    impl: str | Impl = Impl.AUTO,
) -> Tensor:
    """Take tokens through all layers of an encoder, in evaluation.

    Of every layer, with A its self-attention (scores of earlier layers added where
    ``residual_scores``) and ``*`` element by element:
    ``x = (x + A(x)) * scale + shift``, ``x = (x + W_2 gelu(W_1 x + b_1) + b_2) * scale + shift``.

    The compiled kernel takes a few sequences at a time through all layers, so that nothing between
    two products leaves the cache. It has no derivatives.

    Args:
        x_BLD: tokens [batch, length, width].
        layers: their weights.
        num_heads: attention heads.
        activation: nonlinearity of the values, as in `tsattn.ops.active_attention`.
        residual_scores: every layer adds the scores of all layers before it to its own.
        impl: ``auto``, ``reference`` or ``cpu``. ``auto`` takes the compiled kernel where it can.

    Raises:
        ValueError: shapes that do not fit, no layers, or an impl that this operation does not have
            or that cannot take these tensors.

    Source: a layer of PatchTST, Nie et al. 2023, with batch norm as a fixed map.
    """
    _check(x_BLD, layers, num_heads)
    chosen = as_impl(impl)
    if chosen not in (Impl.AUTO, Impl.REFERENCE, Impl.CPU):
        raise ValueError(f"encode has no impl {chosen.value!r}; expected auto, reference or cpu")
    if chosen is Impl.CPU:
        build.ensure()
    obstacle = fused_cpu.obstacle(x_BLD, layers, activation)
    if chosen is Impl.CPU and obstacle:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
    if chosen is Impl.REFERENCE or obstacle or torch.compiler.is_compiling():
        return reference.encode(x_BLD, layers, num_heads, activation, residual_scores)
    assert isinstance(activation, str)
    return fused_cpu.encode(x_BLD, layers, num_heads, activation, residual_scores)


def encodes_at_once(
    x_BLD: Tensor, layers: Sequence[LayerWeights], activation: ValueActivation
) -> bool:
    """Say whether the compiled kernel takes these tensors; without it layers are better called."""
    if torch.compiler.is_compiling():
        return False
    return not fused_cpu.obstacle(x_BLD, layers, activation)


def _check(x_BLD: Tensor, layers: Sequence[LayerWeights], num_heads: int) -> None:
    if x_BLD.ndim != 3 or not layers:
        raise ValueError(
            f"expected tokens [batch, length, width] and at least one layer, got "
            f"{list(x_BLD.shape)} and {len(layers)} layers"
        )
    width = x_BLD.shape[-1]
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"expected heads that divide the width {width}, got {num_heads}")
    hidden = layers[0].expand.shape[0]
    shapes = {
        "projection": (3 * width, width),
        "projection_bias": (3 * width,),
        "out": (width, width),
        "expand": (hidden, width),
        "expand_bias": (hidden,),
        "contract": (width, hidden),
    }
    for number, layer in enumerate(layers):
        for name, weight in layer._asdict().items():
            expected = shapes.get(name, (width,))
            if weight.shape != expected:
                raise ValueError(
                    f"expected {name} {list(expected)} in layer {number}, got {list(weight.shape)}"
                )
