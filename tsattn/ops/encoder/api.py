"""A whole encoder in evaluation: who computes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tsattn.ops import build
from tsattn.ops.activations import ValueActivation
from tsattn.ops.encoder import fused_cpu, reference
from tsattn.ops.encoder.layers import LayerWeights
from tsattn.ops.impl import Impl, as_impl

_SHORT = 128
"""Up to so many tokens a sequence is done before several threads have shared it."""

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
    """Say whether the compiled kernel takes these tensors; without it layers are better called.

    So they are where there are fewer long sequences than threads, among which it shares them out.
    """
    if torch.compiler.is_compiling() or _shape_error(x_BLD, layers):
        return False
    batch, length, _ = x_BLD.shape
    if length > _SHORT and batch < torch.get_num_threads():
        return False
    return not fused_cpu.obstacle(x_BLD, layers, activation)


def _check(x_BLD: Tensor, layers: Sequence[LayerWeights], num_heads: int) -> None:
    if error := _shape_error(x_BLD, layers):
        raise ValueError(error)
    if num_heads < 1 or x_BLD.shape[-1] % num_heads:
        raise ValueError(f"expected heads that divide the width {x_BLD.shape[-1]}, got {num_heads}")


def _shape_error(x_BLD: Tensor, layers: Sequence[LayerWeights]) -> str:
    """Say which shape does not fit, or nothing."""
    if x_BLD.ndim != 3 or not layers or layers[0].expand.ndim != 2:
        return (
            f"expected tokens [batch, length, width] and at least one layer of matrices, got "
            f"{list(x_BLD.shape)} and {len(layers)} layers"
        )
    width, hidden = x_BLD.shape[-1], layers[0].expand.shape[0]
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
                return (
                    f"expected {name} {list(expected)} in layer {number}, got {list(weight.shape)}"
                )
    return ""
