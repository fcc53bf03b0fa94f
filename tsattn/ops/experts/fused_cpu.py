"""Experts through the compiled CPU kernel: slots in blocks that stay in cache."""

# Torch's registration functions carry no types.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from typing import Any

import torch
from torch import Tensor

_NARROW, _GELU = 32, 2
"""Tokens at most this wide in float32, with this activation, have kernels that keep nothing."""
_TAGS = (torch.Tag.pt2_compliant_tag,)
_GIVEN = (
    "Tensor x, Tensor weights, Tensor order, Tensor counts, Tensor expand_weight, "
    "Tensor expand_bias, Tensor contract_weight, Tensor contract_bias, Tensor? seed, float p, "
    "int activation"
)
torch.library.define(
    "tsattn::expert_feedforward",
    f"({_GIVEN}, bool keep_hidden) -> (Tensor output, Tensor hidden)",
    tags=_TAGS,
)
torch.library.define(
    "tsattn::expert_feedforward_backward",
    f"(Tensor grad, Tensor hidden, {_GIVEN}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def expert_feedforward(
    x_ND: Tensor, weights_NK: Tensor, order_S: Tensor, counts_E: Tensor,
    parameters: tuple[Tensor, ...], seed: Tensor | None, p: float, activation: int,
) -> Tensor:  # fmt: skip
    """Compute the weighted sum of the chosen experts' outputs, [N, D]."""
    given = (x_ND, weights_NK, *parameters)
    keep_hidden = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    output, _ = torch.ops.tsattn.expert_feedforward(
        x_ND, weights_NK, order_S, counts_E, *parameters, seed, p, activation, keep_hidden
    )
    return output


def obstacle(x_ND: Tensor, weights_NK: Tensor, parameters: tuple[Tensor, ...]) -> str:
    """Say why the kernel cannot take these tensors, or nothing."""
    autocast = torch.is_autocast_enabled("cpu")
    for tensor in (x_ND, weights_NK, *parameters):
        if tensor.device.type != "cpu":
            return f"it runs on cpu, a tensor is on {tensor.device}"
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"it takes float32 and bfloat16, not {tensor.dtype}"
        if tensor.dtype != x_ND.dtype and tensor is not weights_NK and not autocast:
            return f"it takes one dtype, not {x_ND.dtype} and {tensor.dtype}"
    if autocast and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return f"it takes bfloat16 under autocast, not {torch.get_autocast_dtype('cpu')}"
    if weights_NK.dtype != torch.float32:
        return f"it takes weights in float32, not {weights_NK.dtype}"
    hidden, width = parameters[0].shape[1:]
    if hidden % 16 or width % 16:
        return f"widths must be multiples of 16, not {width} and {hidden}"
    return ""


@torch.library.register_fake("tsattn::expert_feedforward")
def _forward_fake(
    x: Tensor, weights: Tensor, order: Tensor, counts: Tensor, w1: Tensor, b1: Any, w2: Any,
    b2: Any, seed: Any, p: float, activation: int, keep_hidden: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kept = keep_hidden and not _is_narrow(x, activation)
    return x.new_empty(x.shape), x.new_empty(order.shape[0] if kept else 0, w1.shape[1])


@torch.library.register_fake("tsattn::expert_feedforward_backward")
def _backward_fake(
    grad: Tensor, hidden: Tensor, x: Tensor, weights: Tensor, order: Tensor, counts: Tensor,
    w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Any, p: float, activation: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(t.new_empty(t.shape) for t in (x, weights, w1, b1, w2, b2))


def _is_narrow(x: Tensor, activation: int) -> bool:
    return x.dtype == torch.float32 and x.shape[1] <= _NARROW and activation == _GELU
