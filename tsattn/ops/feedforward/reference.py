"""The feed-forward in plain torch, with the mask that the kernel draws: its oracle."""

from torch import Tensor
from torch.nn import functional as F

from tsattn.ops.dropout.philox import keep_scale, keep_weights


def feedforward(
    x: Tensor, expand_weight: Tensor, expand_bias: Tensor, contract_weight: Tensor,
    contract_bias: Tensor, seed: Tensor | None, p: float,
) -> Tensor:  # fmt: skip
    """Compute ``W_2 dropout(gelu(W_1 x + b_1)) + b_2``."""
    hidden = F.gelu(F.linear(x, expand_weight, expand_bias))
    if seed is not None:
        rows, width = hidden.numel() // hidden.shape[-1], hidden.shape[-1]
        keep = keep_weights(seed, (1, 1, rows, width), p).view(hidden.shape)
        hidden = (hidden * keep_scale(p)).masked_fill(~keep, 0.0)
    return F.linear(hidden, contract_weight, contract_bias)
