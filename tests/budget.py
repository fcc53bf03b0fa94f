"""The error budget of an implementation: at most twice as wrong as plain torch in the same dtype.

Wrong means: the Frobenius norm of the difference to the same computation in float64. What a
computation cannot resolve in its dtype at all, one rounding step of the largest norm around, is
free; otherwise a gradient that is truly zero could never be met.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Computation = Callable[..., Tensor | tuple[Tensor, ...]]
"""Takes the inputs by name; returns one output or several."""

FACTOR = 2.0


def assert_within_budget(
    implementation: Computation,
    plain: Computation,
    inputs: Mapping[str, Tensor],
    *,
    further_plain: Sequence[Computation] = (),
    factor: float = FACTOR,
) -> None:
    """Compare outputs and the gradients of all floating inputs with float64, and with plain torch.

    Args:
        implementation: what is tested; runs in the dtype of the inputs.
        plain: the same mathematics in plain torch; runs in that dtype, and in float64 as the truth.
        inputs: tensors by argument name. Floating ones get a gradient, but for those that hold an
            infinity (masks). Strides are kept.
        further_plain: other ways to say it in plain torch; the most wrong of them counts.
        factor: how much more wrong than plain torch the implementation may be; what counts as
            unresolved grows with it.

    Raises:
        AssertionError: naming every output and gradient beyond the budget.
    """
    dtype = next(t.dtype for t in inputs.values() if t.is_floating_point())
    truth = results_and_gradients(plain, {name: _exact(t) for name, t in inputs.items()}, dtype)
    usual = [results_and_gradients(way, inputs, dtype) for way in (plain, *further_plain)]
    with nan_in_fresh_memory():
        tested = results_and_gradients(implementation, inputs, dtype)
    assert tested.keys() == truth.keys(), f"got {sorted(tested)}, expected {sorted(truth)}"
    resolution = torch.finfo(dtype).eps * factor / FACTOR
    beyond: list[str] = []
    for name, exact in truth.items():
        family = [t for other, t in truth.items() if _is_gradient(other) == _is_gradient(name)]
        unresolved = resolution * max(float(t.norm()) for t in family)
        wrong = _distance(tested[name], exact)
        allowed = factor * max(_distance(way[name], exact) for way in usual)
        assert math.isfinite(allowed), f"plain torch itself is not finite in {name}"
        if tested[name].dtype != dtype:
            beyond.append(f"{name} is {tested[name].dtype} instead of {dtype}")
        if not wrong <= max(allowed, unresolved):  # so written, a NaN is beyond the budget
            beyond.append(
                f"{name} is off by {wrong:.3g}, allowed is {max(allowed, unresolved):.3g} "
                f"(norm {float(exact.norm()):.3g})"
            )
    assert not beyond, "; ".join(beyond)


def results_and_gradients(
    computation: Computation, inputs: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Run forwards and backwards; return ``output 0..`` and ``gradient of NAME``.

    The gradients that flow in from above are drawn anew with a fixed seed and rounded to ``dtype``,
    so that they are the same numbers whatever the dtype of the run.
    """
    leaves = {name: _leaf(t) for name, t in inputs.items()}
    outputs = computation(**leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(20)
    above = [
        torch.randn(o.shape, generator=generator).to(o.device, dtype).to(o.dtype) for o in outputs
    ]
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(outputs, list(wanted.values()), above)
    named = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    return named | {
        f"gradient of {name}": gradient for name, gradient in zip(wanted, gradients, strict=True)
    }


@contextmanager
def nan_in_fresh_memory() -> Iterator[None]:
    """Let ``torch.empty`` hand out NaN, so that whatever stays unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def _leaf(given: Tensor) -> Tensor:
    return given.detach().requires_grad_(given.is_floating_point() and bool(given.isfinite().all()))


def _exact(given: Tensor) -> Tensor:
    return given.double() if given.is_floating_point() else given


def _is_gradient(name: str) -> bool:
    return name.startswith("gradient")


def _distance(tensor: Tensor, exact: Tensor) -> float:
    return float((tensor.double() - exact).norm())
