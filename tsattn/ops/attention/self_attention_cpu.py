"""Self-attention on packed projections in one compiled CPU kernel.

Queries and keys of earlier layers are read where their projections lie, and never copied side by
side. Their gradients go backwards through the *link*, a tensor of [layers, batch, length, 2 D] that
holds no numbers: every layer adds its part to what the later ones found, and the layer that made a
projection, the last in the backward pass, takes the sum into the gradient of its own.
"""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tsattn.ops.attention.fused_cpu import NUMBERS
from tsattn.ops.dropout.philox import draw_seed

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::self_attention_forward",
    "(Tensor[] projections, Tensor link, Tensor? seed, int heads, int activation, bool is_causal, "
    "float dropout_p, float scale) -> (Tensor output, Tensor link, Tensor stats)",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::self_attention_backward",
    "(Tensor grad_output, Tensor? grad_link, Tensor[] projections, Tensor? seed, Tensor output, "
    "Tensor stats, int heads, int activation, bool is_causal, float dropout_p, float scale) "
    "-> (Tensor grad_projection, Tensor grad_earlier)",
    tags=_TAGS,
)


def attend(
    projections: Sequence[Tensor],
    link: Tensor | None,
    *,
    num_heads: int,
    activation: str,
    is_causal: bool,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Attend within the last projection; return the output [B, L, D] and the link of all of them.

    Args as in `tsattn.ops.self_attention`; the link is needed where there are earlier projections.
    """
    batch, length, packed = projections[-1].shape
    width = packed // 3
    earlier = projections[-1].new_empty(0, batch, length, 2 * width) if link is None else link
    seed = draw_seed() if dropout_p > 0 else None
    output, link_so_far, _ = torch.ops.tsattn.self_attention_forward(
        projections, earlier, seed, num_heads, NUMBERS[activation], is_causal, dropout_p,
        (width // num_heads) ** -0.5,
    )  # fmt: skip
    return output, link_so_far


@torch.library.register_fake("tsattn::self_attention_forward")
def _forward_fake(
    projections: Sequence[Tensor], link: Tensor, seed: Any, heads: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    own = projections[-1]
    batch, length, packed = own.shape
    width = packed // 3
    stats = own.new_empty((2, batch, heads, length), dtype=torch.float32)
    number = own.new_empty(1, 1, 1, 1)
    next_link = number.expand(len(projections), batch, length, 2 * width)
    return own.new_empty(batch, length, width), next_link, stats


@torch.library.register_fake("tsattn::self_attention_backward")
def _backward_fake(
    grad_output: Tensor, grad_link: Any, projections: Sequence[Tensor], *_: Any
) -> tuple[Tensor, Tensor]:
    own = projections[-1]
    batch, length, packed = own.shape
    earlier = own.new_empty(len(projections) - 1, batch, length, packed // 3 * 2)
    return own.new_empty(own.shape), earlier
