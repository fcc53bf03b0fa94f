"""The feed-forward of a layer: chooses an implementation, draws the seed, calls it."""

from torch import Tensor

from tsattn.ops import build
from tsattn.ops.dropout.api import gelu_dropout
from tsattn.ops.dropout.philox import draw_seed
from tsattn.ops.feedforward import fused_cpu, reference
from tsattn.ops.impl import Impl, as_impl
from tsattn.ops.linear import linear


def feedforward(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    contract_weight: Tensor,
    contract_bias: Tensor,
    *,
    p: float = 0.0,
    impl: str | Impl = Impl.AUTO,
) -> Tensor:
    """Compute ``W_2 dropout(gelu(W_1 x + b_1)) + b_2`` for every token, with the exact GELU.

    The compiled kernel keeps a tile of hidden units in the cache, stores none of them, and computes
    them again in the backward pass. It is for narrow tokens; wide ones are faster through torch's
    products, which is what ``auto`` then takes.

    Args:
        x: tokens [..., width].
        expand_weight: ``W_1`` [hidden, width].
        expand_bias: ``b_1`` [hidden].
        contract_weight: ``W_2`` [width, hidden].
        contract_bias: ``b_2`` [width].
        p: probability of dropping a hidden unit, as in `tsattn.ops.dropout`.
        impl: ``auto``, ``reference`` (the kernel's mask in plain torch, slow) or ``cpu``.

    Raises:
        ValueError: shapes that do not fit, ``p`` outside [0, 1), or an impl that this operation
            does not have or that cannot take these tensors.

    Example:
        >>> w1, w2 = torch.randn(64, 16), torch.randn(16, 64)
        >>> feedforward(torch.randn(8, 42, 16), w1, torch.zeros(64), w2, torch.zeros(16)).shape
        torch.Size([8, 42, 16])
    """
    weights = (expand_weight, expand_bias, contract_weight, contract_bias)
    _check(x, *weights, p)
    chosen = as_impl(impl)
    obstacle = fused_cpu.obstacle(x, *weights)
    if chosen is Impl.AUTO and (obstacle or not build.is_ready()):
        hidden = gelu_dropout(linear(x, expand_weight, expand_bias), p)
        return linear(hidden, contract_weight, contract_bias)
    if chosen not in (Impl.AUTO, Impl.CPU, Impl.REFERENCE):
        raise ValueError(
            f"feedforward has no impl {chosen.value!r}; expected auto, reference or cpu"
        )
    seed = draw_seed() if p > 0 else None
    if chosen is Impl.REFERENCE:
        return reference.feedforward(x, *weights, seed, p)
    if obstacle:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
    build.ensure()
    return fused_cpu.feedforward(x, *weights, seed, p)


def _check(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, p: float) -> None:
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be in [0, 1), got {p}")
    if x.ndim < 1 or w1.ndim != 2 or w1.shape[1] != x.shape[-1] or w2.shape != w1.shape[::-1]:
        raise ValueError(
            "expected x [..., width], expand_weight [hidden, width] and contract_weight "
            f"[width, hidden], got {list(x.shape)}, {list(w1.shape)} and {list(w2.shape)}"
        )
    if b1.shape != w1.shape[:1] or b2.shape != w2.shape[:1]:
        raise ValueError(
            f"expected biases {list(w1.shape[:1])} and {list(w2.shape[:1])}, got "
            f"{list(b1.shape)} and {list(b2.shape)}"
        )
