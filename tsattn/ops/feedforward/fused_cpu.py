"""The feed-forward through the compiled CPU kernel: hidden units never leave the cache."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

WIDEST = 32
"""Above this width of a token torch's own products are faster."""

_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(
    "tsattn::feedforward",
    "(Tensor x, Tensor expand_weight, Tensor expand_bias, Tensor contract_weight, "
    "Tensor contract_bias, Tensor? seed, float p) -> Tensor",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::feedforward_backward",
    "(Tensor grad, Tensor x, Tensor expand_weight, Tensor expand_bias, Tensor contract_weight, "
    "Tensor? seed, float p) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def feedforward(
    x: Tensor, expand_weight: Tensor, expand_bias: Tensor, contract_weight: Tensor,
    contract_bias: Tensor, seed: Tensor | None, p: float,
) -> Tensor:  # fmt: skip
    """Compute ``W_2 dropout(gelu(W_1 x + b_1)) + b_2``."""
    return torch.ops.tsattn.feedforward(
        x, expand_weight, expand_bias, contract_weight, contract_bias, seed, p
    )


def obstacle(x: Tensor, *weights: Tensor) -> str:
    """Say why the kernel cannot take these tensors, or nothing."""
    for tensor in (x, *weights):
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"it takes float32, not {tensor.dtype}"
    if torch.is_autocast_enabled("cpu"):
        return "it computes in float32, and autocast is on"
    if x.shape[-1] % 16 or x.shape[-1] > WIDEST:
        return f"the width of a token must be 16 or {WIDEST}, not {x.shape[-1]}"
    return ""


@torch.library.register_fake("tsattn::feedforward")
def _forward_fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.register_fake("tsattn::feedforward_backward")
def _backward_fake(
    grad: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, seed: Any, p: float
) -> tuple[Tensor, ...]:
    like = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, w1, b1, w2)]
    return (*like, w2.new_empty(w2.shape[0]))
