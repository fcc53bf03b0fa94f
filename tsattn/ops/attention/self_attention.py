"""Self-attention on packed projections, with the scores of earlier layers added."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tsattn.ops import build
from tsattn.ops.activations import ValueActivation
from tsattn.ops.attention import fused_cpu, self_attention_cpu
from tsattn.ops.attention.api import active_attention
from tsattn.ops.impl import Impl, as_impl


class SelfAttended(NamedTuple):
    """The output [B, L, D], and what later layers hand back with the projections so far.

    The link carries gradients through the compiled kernel, and no numbers; None where another
    implementation computed.
    """

    output: Tensor
    link: Tensor | None


def self_attention(
    projections: Sequence[Tensor],
    link: Tensor | None = None,
    *,
    num_heads: int,
    activation: ValueActivation = "identity",
    is_causal: bool = False,
    dropout_p: float = 0.0,
    impl: str | Impl = Impl.AUTO,
) -> SelfAttended:
    """Attend within one layer's projection: ``softmax(scale * sum_l Q_l K_l') activation(V)``.

    Args:
        projections: queries, keys and values of every layer so far, side by side in the last axis,
            [B, L, 3 D]; the last one is this layer's, the only one whose values count. With a
            single projection this is plain self-attention, with more the residual attention of
            the published PatchTST code.
        link: the link that the layer before returned.
        num_heads: heads; head ``n`` has the features ``n W .. (n + 1) W`` of each third.
        activation: nonlinearity of the values, as in `tsattn.ops.active_attention`.
        is_causal: position ``i`` looks at positions ``0..i`` only.
        dropout_p: probability with which an attention weight is dropped, in [0, 1).
        impl: as in `tsattn.ops.active_attention`.

    Raises:
        ValueError: shapes that do not fit, and what `tsattn.ops.active_attention` refuses.

    Example:
        >>> projection = torch.randn(2, 42, 3 * 16)
        >>> self_attention([projection], num_heads=4, activation="tanh").output.shape
        torch.Size([2, 42, 16])
    """
    _check(projections, num_heads)
    own = projections[-1]
    if _fuses(as_impl(impl), own, activation, is_linked=link is not None or len(projections) == 1):
        assert isinstance(activation, str)
        output, link_so_far = self_attention_cpu.attend(
            projections,
            link,
            num_heads=num_heads,
            activation=activation,
            is_causal=is_causal,
            dropout_p=dropout_p,
        )
        return SelfAttended(output, link_so_far)
    parts = [_heads(projection, num_heads) for projection in projections]
    output = active_attention(
        torch.cat([q for q, _, _ in parts], dim=-1),
        torch.cat([k for _, k, _ in parts], dim=-1),
        parts[-1][2],
        activation=activation,
        is_causal=is_causal,
        dropout_p=dropout_p,
        scale=parts[-1][2].shape[-1] ** -0.5,
        impl=impl,
    )
    assert isinstance(output, Tensor)  # scores were not asked for
    return SelfAttended(output.transpose(1, 2).flatten(2), None)


def _fuses(impl: Impl, own: Tensor, activation: ValueActivation, *, is_linked: bool) -> bool:
    if impl not in (Impl.AUTO, Impl.CPU) or not is_linked:
        return False
    known = isinstance(activation, str) and activation in fused_cpu.NUMBERS
    return known and not fused_cpu.obstacle(own, own, own) and build.is_ready()


def _heads(projection: Tensor, num_heads: int) -> list[Tensor]:
    batch, length, packed = projection.shape
    sizes = (batch, length, num_heads, packed // (3 * num_heads))
    return [part.view(sizes).transpose(1, 2) for part in projection.chunk(3, dim=-1)]


def _check(projections: Sequence[Tensor], num_heads: int) -> None:
    shapes = ", ".join(str(list(projection.shape)) for projection in projections)
    own = projections[-1].shape if projections else torch.Size()
    if len(own) != 3 or num_heads < 1 or own[2] % (3 * num_heads):
        raise ValueError(
            f"expected projections [batch, length, 3 * width] for {num_heads} heads, got {shapes}"
        )
    if any(projection.shape != own for projection in projections):
        raise ValueError(f"the projections of all layers must share one shape, got {shapes}")
