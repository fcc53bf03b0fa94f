"""Timings of the operation: every implementation and activation beside torch's own attention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.bench.ceilings import DTYPES
from tsattn.bench.timing import Spread, measure, speed_up
from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS, active_attention

PEERS = ("torch sdpa", "torch eager")
FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"
# two products forwards, four backwards; computing weights again counts nothing
_WORK = {FORWARD: 1, BACKWARD: 2, BOTH: 3}


@dataclass(frozen=True)
class Case:
    """A shape that attention is timed at.

    Attributes:
        name: short name, as ``--only`` takes it.
        batch: sequences B.
        heads: heads N.
        length: queries, and keys, L.
        width: width of a head W.
        residual: whether previous scores come in and new ones go out.
    """

    name: str
    batch: int
    heads: int
    length: int
    width: int
    residual: bool = False

    @property
    def gflop(self) -> float:
        """Arithmetic of both products, forwards, in 1e9."""
        return 4e-9 * self.batch * self.heads * self.length**2 * self.width

    def gigabytes(self, dtype: str) -> float:
        """What must be read and written, forwards, in 1e9 bytes: q, k, v, output and scores."""
        rows = self.batch * self.heads * self.length
        numbers = rows * (4 * self.width + 2 * self.length * self.residual)
        return 1e-9 * numbers * DTYPES[dtype].itemsize


CASES = (
    Case("etth1", 896, 4, 42, 4, residual=True),
    Case("weather", 672, 16, 42, 8, residual=True),
    Case("transformer", 32, 8, 336, 64),
)


@dataclass(frozen=True)
class KernelTiming:
    """One implementation at one case, or a peer.

    Attributes:
        case: name of the case.
        activation: the value activation.
        dtype: dtype of the inputs.
        phase: ``forward``, ``backward`` alone, or ``forward + backward`` in one go.
        name: implementation or peer.
        milliseconds: time of a call.
        speed_ups: times faster than each peer, by the peer's name; empty for a peer.
        arithmetic_share: achieved GFLOP/s over those of a dense product of this machine.
        traffic_share: achieved necessary GB/s over those of a copy; forwards only.
        peak_mib: what a call adds to the resident memory, see
            `tsattn.bench.kernel_memory`; not of a backward
            pass alone.
    """

    case: str
    activation: str
    dtype: str
    phase: str
    name: str
    milliseconds: Spread
    speed_ups: dict[str, Spread]
    arithmetic_share: float
    traffic_share: float | None
    peak_mib: float | None = None


def case_of(text: str) -> Case:
    """Return the case that ``B,N,L,W`` describes, without previous scores.

    Raises:
        ConfigError: not four positive whole numbers.
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 4 or min(sizes) < 1:
        raise ConfigError(
            f"--shape takes batch,heads,length,width as four positive numbers, got {text!r}; "
            "for example --shape 896,4,42,4"
        )
    batch, heads, length, width = sizes
    return Case("x".join(map(str, sizes)), batch, heads, length, width)


def time_kernels(
    cases: Sequence[Case],
    implementations: Sequence[str],
    *,
    rounds: int,
    activations: Sequence[str] = tuple(VALUE_ACTIVATIONS),
    dtypes: Sequence[str] = ("float32",),
    product_gflops: dict[str, float],
    copy_gigabytes: float,
    memory: Callable[[Case, str, str, str, str], float | None],
) -> Iterator[KernelTiming]:
    """Time every implementation in turn with the peers.

    Args:
        cases: shapes.
        implementations: names of `tsattn.ops.Impl`.
        rounds: how often each is timed.
        activations: value activations.
        dtypes: ``float32``, ``bfloat16``.
        product_gflops: rate of a dense product here, by dtype.
        copy_gigabytes: rate of a copy here, per second.
        memory: tells what a call adds to the memory, see `tsattn.bench.kernel_memory`.
    """
    for case in cases:
        for dtype in dtypes:
            inputs = _draw(case, DTYPES[dtype])
            for activation in activations:
                calls = _contenders(case, implementations, activation)
                for phase, prepare in PREPARE.items():
                    runs = {
                        name: prepare(call, as_handed_on(call, inputs))
                        for name, call in calls.items()
                    }
                    seconds = measure(runs, rounds)
                    ceilings = (product_gflops[dtype], copy_gigabytes)
                    for found in _summarise(case, activation, dtype, phase, seconds, ceilings):
                        peak = memory(case, dtype, activation, found.name, phase)
                        yield replace(found, peak_mib=peak)


def prepared(case: Case, dtype: str, activation: str, phase: str, name: str) -> Callable[[], None]:
    """Return a phase of one implementation or peer, ready to run."""
    impls = () if name in PEERS else (name,)
    call = _contenders(case, impls, activation)[name]
    return PREPARE[phase](call, _draw(case, DTYPES[dtype]))


def _summarise(
    case: Case,
    activation: str,
    dtype: str,
    phase: str,
    seconds: dict[str, list[float]],
    ceilings: tuple[float, float],
) -> Iterator[KernelTiming]:
    work = case.gflop * _WORK[phase]
    for name, taken in seconds.items():
        middle = Spread.of(taken).median
        peers = () if name in PEERS else PEERS
        moved = case.gigabytes(dtype) / middle / ceilings[1]
        yield KernelTiming(
            case=case.name,
            activation=activation,
            dtype=dtype,
            phase=phase,
            name=name,
            milliseconds=Spread.of([1e3 * s for s in taken]),
            speed_ups={peer: speed_up(taken, seconds[peer]) for peer in peers},
            arithmetic_share=work / middle / ceilings[0],
            traffic_share=moved if phase == FORWARD else None,
        )


def _draw(case: Case, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.heads, case.length, case.width)
    shapes = [shape] * 3 + [(*shape[:3], case.length)] * case.residual
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def as_handed_on(call: Callable[..., Any], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Lay the previous scores out as the call returns its own: so a layer hands them to the next.

    Args:
        call: an implementation; one that returns no scores keeps them as they are.
        inputs: q, k, v, and where there are any the previous scores.
    """
    with torch.no_grad():
        made = call(*(x[:1] for x in inputs)) if len(inputs) > 3 else None
    if not isinstance(made, tuple) or made[1].stride(2) != 1:
        return inputs
    queries_last = inputs[3].detach().transpose(2, 3).contiguous().transpose(2, 3)
    return [*inputs[:3], queries_last.requires_grad_()]


def _contenders(
    case: Case, implementations: Sequence[str], activation: str
) -> dict[str, Callable[..., Any]]:
    """Return what is timed; torch's attention takes previous scores as a mask, and returns none."""
    sigma = VALUE_ACTIVATIONS[activation]

    def eager(q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None = None) -> Any:
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        scores = scores if prev is None else scores + prev
        output = torch.softmax(scores, dim=-1) @ sigma(v)
        return output if prev is None else (output, scores)

    def sdpa(q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None = None) -> Any:
        return F.scaled_dot_product_attention(q, k, sigma(v), prev)

    def ours(impl: str, q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None = None) -> Any:
        return active_attention(
            q, k, v,
            activation=activation, prev_scores=prev, return_scores=case.residual, impl=impl,
        )  # fmt: skip

    return {impl: partial(ours, impl) for impl in implementations} | {
        "torch sdpa": sdpa,
        "torch eager": eager,
    }


def _forward(call: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            call(*inputs)

    return run


def _backward(call: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[[], None]:
    outputs = _outputs(call, inputs)
    above = [torch.ones_like(output) for output in outputs]

    def run() -> None:
        torch.autograd.grad(outputs, inputs, above, retain_graph=True)

    return run


def _both(call: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[[], None]:
    above: list[Tensor] = []

    def run() -> None:
        outputs = _outputs(call, inputs)
        if not above:  # the first run is no timed one
            above.extend(torch.ones_like(output) for output in outputs)
        torch.autograd.grad(outputs, inputs, above)

    return run


def _outputs(call: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    result = call(*inputs)
    return list(result) if isinstance(result, tuple) else [result]


Prepare = Callable[[Callable[..., Any], Sequence[Tensor]], Callable[[], None]]
PREPARE: Mapping[str, Prepare] = {FORWARD: _forward, BACKWARD: _backward, BOTH: _both}
"""By phase, what makes a run of a call and its inputs."""
