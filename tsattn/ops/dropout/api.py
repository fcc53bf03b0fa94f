"""Dropout that stores no mask: chooses an implementation, draws the seed, calls it.

All three draw one seed per call from torch's CPU generator, so `torch.manual_seed` makes them
reproducible, and any two calls are independent. The backward pass draws the mask again from the
seed. The mask depends on the seed and on an element's place only, not on threads or machines.
"""

from types import ModuleType

from torch import Tensor
from torch.nn import functional as F

from tsattn.ops import build
from tsattn.ops.dropout import fused_cpu, reference
from tsattn.ops.dropout.philox import draw_seed
from tsattn.ops.impl import Impl, as_impl


def dropout(x: Tensor, p: float, *, impl: str | Impl = Impl.AUTO) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``.

    Args:
        x: any shape.
        p: probability in [0, 1), resolved to 1 / 65536; what is kept is scaled by the rate used.
        impl: ``auto``, ``reference`` (the same mask in plain torch, slow) or ``cpu``. ``auto``
            takes the compiled kernel where it can, else torch's own dropout.

    Raises:
        ValueError: ``p`` outside [0, 1), or an impl that dropout does not have or that cannot take
            these tensors.

    Example:
        >>> dropout(torch.ones(8), 0.5, impl="reference").unique().tolist()
        [0.0, 2.0]
    """
    _check(p)
    if p == 0:
        return x
    chosen = _choose(impl, x)
    return F.dropout(x, p) if chosen is None else chosen.dropout(x, draw_seed(), p)


def add_dropout(residual: Tensor, x: Tensor, p: float, *, impl: str | Impl = Impl.AUTO) -> Tensor:
    """Compute ``residual + dropout(x)`` in one pass.

    Args:
        residual: like ``x``; float32 beside a bfloat16 ``x`` gives float32.
        x: what is dropped out.
        p: as in `dropout`.
        impl: as in `dropout`.

    Raises:
        ValueError: as in `dropout`, or shapes that differ.
    """
    _check(p)
    if residual.shape != x.shape:
        raise ValueError(
            f"residual and x must have one shape, got {list(residual.shape)} and {list(x.shape)}"
        )
    if p == 0:
        return residual + x
    chosen = _choose(impl, x, residual)
    if chosen is None:
        return residual + F.dropout(x, p)
    return chosen.add_dropout(residual, x, draw_seed(), p)


def gelu_dropout(x: Tensor, p: float, *, impl: str | Impl = Impl.AUTO) -> Tensor:
    """Compute ``dropout(gelu(x))`` in one pass; the backward pass needs ``x`` alone.

    GELU is the exact one, ``x Phi(x)``.

    Args:
        x: any shape, the hidden layer before its activation.
        p: as in `dropout`.
        impl: as in `dropout`.

    Raises:
        ValueError: as in `dropout`.
    """
    _check(p)
    if p == 0:
        return F.gelu(x)
    chosen = _choose(impl, x)
    return F.dropout(F.gelu(x), p) if chosen is None else chosen.gelu_dropout(x, draw_seed(), p)


def _check(p: float) -> None:
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be in [0, 1), got {p}")


def _choose(impl: str | Impl, *tensors: Tensor) -> ModuleType | None:
    chosen = as_impl(impl)
    obstacle = next((why for x in tensors if (why := fused_cpu.obstacle(x))), "")
    if chosen is Impl.AUTO:
        return fused_cpu if not obstacle and build.is_ready() else None
    if chosen is Impl.REFERENCE:
        return reference
    if chosen is not Impl.CPU:
        raise ValueError(f"dropout has no impl {chosen.value!r}; expected auto, reference or cpu")
    if obstacle:
        raise ValueError(f"impl 'cpu' cannot take these tensors: {obstacle}")
    build.ensure()
    return fused_cpu
