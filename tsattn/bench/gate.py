"""The checks that come before every timing: a wrong answer has no speed.

An implementation may be at most twice as wrong against float64 as plain torch is in the same dtype,
for the output and every gradient; what the dtype cannot resolve is free. Networks are held to the
same budget, and to the stored tensors of the published code where a checkout has them.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

import tsattn
from tsattn.bench.ceilings import DTYPES
from tsattn.bench.plain import plain_of
from tsattn.bench.recipes import Batch, Recipe, with_impl
from tsattn.interop.published import from_state_dict, to_state_dict
from tsattn.models import Forecast, ForecastNetwork
from tsattn.ops import VALUE_ACTIVATIONS, active_attention

FACTOR = 2.0
_SHAPE = (3, 4, 42, 8)
_STEPS_OF_A_NETWORK = 32  # rounding steps that a network's plain forecast and gradients may differ
_PARITY = 1e-5
_PLAIN = ("reference", "sdpa")
_NOT_LEARNED = (".pe", ".scale", ".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        passed: whether it may be timed.
        detail: how wrong it is, and how wrong it may be.
    """

    name: str
    passed: bool
    detail: str


def attention_checks(
    implementations: Sequence[str],
    dtypes: Sequence[str] = tuple(DTYPES),
    shape: tuple[int, int, int, int] = _SHAPE,
    *,
    activations: Sequence[str] = tuple(VALUE_ACTIVATIONS),
    scores: Sequence[bool] = (False, True),
    is_causal: bool = False,
) -> Iterator[Check]:
    """Compare outputs and gradients of the operation with float64, with and without scores.

    Args:
        implementations: names of `tsattn.ops.Impl`.
        dtypes: ``float32``, ``bfloat16``.
        shape: batch, heads, length and width.
        activations: value activations.
        scores: whether previous scores come in and new ones go out; both, one after the other.
        is_causal: whether a query looks at no later key.
    """
    for dtype in dtypes:
        for residual in scores:
            for activation in activations:
                drawn = [t.to(DTYPES[dtype]) for t in _draw(shape, residual)]
                exact = _attention("reference", activation, [t.double() for t in drawn], is_causal)
                plain = [_attention(impl, activation, drawn, is_causal) for impl in _PLAIN]
                for impl in implementations:
                    name = f"attention {impl} {activation} {dtype}"
                    name += "" if shape == _SHAPE else f" {'x'.join(map(str, shape))}"
                    name += " causal" if is_causal else ""
                    name += " with residual scores" if residual else ""
                    ours = _attention(impl, activation, drawn, is_causal)
                    yield budget(name, ours, exact, plain, torch.finfo(DTYPES[dtype]).eps)


def _draw(shape: tuple[int, int, int, int], residual: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(20)
    shapes = [shape] * 3 + [(*shape[:3], shape[2])] * residual
    return [torch.randn(s, generator=generator) for s in shapes]


def _attention(
    impl: str, activation: str, given: Sequence[Tensor], is_causal: bool
) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in given]
    q, k, v, *prev = leaves
    result = active_attention(
        q, k, v,
        activation=activation,
        prev_scores=prev[0] if prev else None,
        return_scores=bool(prev),
        is_causal=is_causal,
        impl=impl,
    )  # fmt: skip
    outputs = list(result) if isinstance(result, tuple) else [result]
    generator = torch.Generator().manual_seed(21)
    above = [
        torch.randn(o.shape, generator=generator).to(given[0].dtype).to(o.dtype) for o in outputs
    ]
    gradients = torch.autograd.grad(outputs, leaves, above)
    return [t.detach() for t in (*outputs, *gradients)]


def network_checks(
    recipe: Recipe, implementations: Sequence[str], precisions: Sequence[str]
) -> Iterator[Check]:
    """Compare a recipe's forecast, loss and gradient, dropout off, with float64.

    The truth and the yardstick are the same network of torch's own modules.
    """
    network, batch = recipe.network(dropout=0.0), recipe.with_batch(2).draw()
    exact = _training(plain_of(network).double(), batch.double(), "float32")
    for precision in precisions:
        plain = _training(plain_of(network), batch, precision)
        eps = torch.finfo(DTYPES["float32" if precision == "float32" else "bfloat16"]).eps
        for impl in implementations:
            ours = _training(with_impl(network, impl), batch, precision)
            name = f"network {recipe.name} {impl} {precision}"
            yield budget(name, ours, exact, [plain], _STEPS_OF_A_NETWORK * eps)


def _training(network: nn.Module, batch: Batch, precision: str) -> list[Tensor]:
    """Return forecast, loss and gradient."""
    network.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
        result = network(*batch.inputs)
    forecast = result.mean if isinstance(result, Forecast) else result
    loss = torch.nn.functional.mse_loss(forecast.to(batch.target.dtype), batch.target)
    loss.backward()
    return [forecast.detach(), loss.detach(), _gradient(network)]


def _gradient(network: nn.Module) -> Tensor:
    """Return all gradients as one vector, in the order of the published names."""
    if isinstance(network, ForecastNetwork):
        holder = copy.deepcopy(network)
        with torch.no_grad():
            for target, source in zip(holder.parameters(), network.parameters(), strict=True):
                assert source.grad is not None, "a parameter without a gradient"
                target.copy_(source.grad)
        named = to_state_dict(holder)
    else:
        named = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
    learned = sorted(k for k in named if not k.endswith(_NOT_LEARNED))
    return torch.cat([named[k].flatten() for k in learned])


def parity_checks(implementations: Sequence[str]) -> Iterator[Check]:
    """Compare forecasts with the stored tensors of the published code, where there are some."""
    folder = Path(tsattn.__file__).parents[1] / "tests" / "golden"
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = {k[6:]: t for k, t in tensors.items() if k.startswith("state.")}
        names = ("input.x", "input.x_mark", "input.future_mark")
        inputs = [tensors[name] for name in names if name in tensors]
        expected = tensors["eval.output"]
        network = from_state_dict(state, config)
        for impl in implementations:
            with torch.inference_mode():
                forecast = with_impl(network, impl).eval()(*inputs).mean
            wrong = _distance(forecast, expected) / float(expected.double().norm())
            yield Check(
                f"parity {path.stem} {impl}",
                wrong <= _PARITY,
                f"relative difference {wrong:.1e}, allowed {_PARITY:.0e}",
            )


def same_answer(name: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> Check:
    """Compare the forecasts of two networks that hold the same weights."""
    wrong = _distance(ours, theirs) / float(theirs.double().norm())
    return Check(
        name, wrong <= tolerance, f"relative difference {wrong:.1e}, allowed {tolerance:.0e}"
    )


def failures(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that forbid a timing."""
    return [check for check in checks if not check.passed]


def budget(
    name: str,
    ours: Sequence[Tensor],
    exact: Sequence[Tensor],
    plain: Sequence[Sequence[Tensor]],
    resolution: float,
) -> Check:
    """Compare results with the truth: at most twice as wrong as plain torch, see above.

    Args:
        name: of the check.
        ours: results.
        exact: the same in float64.
        plain: the same by plain torch, one way or several.
        resolution: what is free, as a share of the largest norm.
    """
    worst, details = 0.0, ""
    unresolved = resolution * max(float(truth.norm()) for truth in exact)
    for place, truth in enumerate(exact):
        wrong = _distance(ours[place], truth)
        allowed = FACTOR * max(_distance(way[place], truth) for way in plain)
        allowed = max(allowed, unresolved)
        share = wrong / allowed
        if not share <= worst:  # so written, a NaN is the worst
            worst, details = share, f"result {place} is off by {wrong:.1e}, allowed {allowed:.1e}"
    return Check(name, worst <= 1.0, details or "no difference")


def _distance(tensor: Tensor, exact: Tensor) -> float:
    return float((tensor.double() - exact.double()).norm())
