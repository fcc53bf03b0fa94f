"""Feed-forward experts: chooses an implementation, draws the seed, calls it."""

from torch import Tensor

from tsattn.ops import build
from tsattn.ops.activations import VALUE_ACTIVATIONS
from tsattn.ops.dropout.philox import draw_seed
from tsattn.ops.experts import fused_cpu, reference
from tsattn.ops.impl import Impl, as_impl

_NUMBERS = {name: number for number, name in enumerate(VALUE_ACTIVATIONS)}


def expert_feedforward(
    x_ND: Tensor,
    weights_NK: Tensor,
    order_S: Tensor,
    counts_E: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    activation: str = "gelu",
    p: float = 0.0,
    impl: str | Impl = Impl.AUTO,
) -> Tensor:
    """Compute ``sum_k weights[n, k] expert_(n, k)(x[n])`` for every token, [N, D].

    ``expert_e(x) = W2_e dropout(activation(W1_e x + b1_e)) + b2_e``. Slot ``n K + k`` is the k-th
    choice of token n; the slots are given sorted by expert. The compiled kernel takes a block of
    slots through both products of its expert while it is in cache, keeps of the hidden units what
    goes into the activation, and adds in a fixed order: results do not depend on the number of
    threads.

    Args:
        x_ND: tokens.
        weights_NK: of the chosen experts.
        order_S: numbers of the slots, those of expert 0 first; `tsattn.ops.sort_slots` gives them.
        counts_E: slots of each expert.
        parameters: ``W1`` [E, F, D], ``b1`` [E, F], ``W2`` [E, D, F] and ``b2`` [E, D].
        activation: one of `tsattn.ops.VALUE_ACTIVATIONS`.
        p: probability of dropping a hidden unit, as in `tsattn.ops.dropout`.
        impl: ``auto``, ``reference`` (the kernel's mask in plain torch, slow) or ``cpu``.

    Raises:
        ValueError: shapes that do not fit, ``p`` outside [0, 1), an unknown activation, or an impl
            that this operation does not have or that cannot take these tensors.
    """
    _check(x_ND, weights_NK, order_S, counts_E, parameters, activation, p)
    chosen = as_impl(impl)
    if chosen not in (Impl.AUTO, Impl.CPU, Impl.REFERENCE):
        raise ValueError(
            f"expert_feedforward has no impl {chosen.value!r}; expected auto, reference or cpu"
        )
    hindrance = obstacle(x_ND, weights_NK, parameters)
    seed = draw_seed() if p > 0 else None
    given = (x_ND, weights_NK, order_S, counts_E, parameters, seed, p)
    if chosen is Impl.REFERENCE or (chosen is Impl.AUTO and (hindrance or not build.is_ready())):
        return reference.expert_feedforward(*given, activation)
    if hindrance:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {hindrance}")
    build.ensure()
    return fused_cpu.expert_feedforward(*given, _NUMBERS[activation])


def obstacle(x_ND: Tensor, weights_NK: Tensor, parameters: tuple[Tensor, ...]) -> str:
    """Say why the compiled kernel cannot take these tensors, or nothing."""
    return fused_cpu.obstacle(x_ND, weights_NK, parameters)


def _check(
    x: Tensor, weights: Tensor, order: Tensor, counts: Tensor, parameters: tuple[Tensor, ...],
    activation: str, p: float,
) -> None:  # fmt: skip
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be in [0, 1), got {p}")
    if activation not in VALUE_ACTIVATIONS:
        known = ", ".join(VALUE_ACTIVATIONS)
        raise ValueError(f"unknown activation {activation!r}; expected one of {known}")
    experts, hidden, width = parameters[0].shape
    expected = [(experts, hidden, width), (experts, hidden), (experts, width, hidden)]
    found = [tuple(t.shape) for t in parameters]
    if found != [*expected, (experts, width)] or x.ndim != 2 or x.shape[1] != width:
        raise ValueError(
            "expected tokens [N, D], W1 [E, F, D], b1 [E, F], W2 [E, D, F] and b2 [E, D], got "
            f"{list(x.shape)}, {', '.join(str(list(shape)) for shape in found)}"
        )
    if weights.ndim != 2 or len(weights) != len(x) or order.shape != (weights.numel(),):
        raise ValueError(
            f"expected weights [{len(x)}, K] and an order of all N K slots, got "
            f"{list(weights.shape)} and {list(order.shape)}"
        )
    if counts.shape != (experts,):
        raise ValueError(f"expected counts of {experts} experts, got {list(counts.shape)}")
