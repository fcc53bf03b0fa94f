"""Where the compiled attention wins, and whether ``impl="auto"`` ever loses to torch's own.

Every setting is timed in turn with ``F.scaled_dot_product_attention`` with the activation outside.
A ratio below the limit is measured once more, with three times the rounds, and this one counts: of
a thousand ratios some are low by chance.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.bench.ceilings import DTYPES
from tsattn.bench.kernels import PREPARE, as_handed_on
from tsattn.bench.settings import LIMIT, RESIDUAL_LIMIT, Setting
from tsattn.bench.timing import Spread, measure, speed_up
from tsattn.ops import VALUE_ACTIVATIONS, active_attention

PHASES = tuple(PREPARE)
_AGAIN = 3


@dataclass(frozen=True)
class Comparison:
    """One implementation beside torch's attention.

    Attributes:
        setting: what was timed.
        impl: the implementation.
        phase: ``forward`` (without autograd), ``backward`` alone, or ``forward + backward``.
        milliseconds: time of the implementation.
        torch_milliseconds: time of torch's attention.
        ratio: times faster than torch's attention.
        is_slower: whether the ratio is below the limit of the setting.
    """

    setting: Setting
    impl: str
    phase: str
    milliseconds: Spread
    torch_milliseconds: Spread
    ratio: Spread
    is_slower: bool


def compare(
    settings: Sequence[Setting],
    implementations: Sequence[str],
    *,
    rounds: int,
    phases: Sequence[str] = PHASES,
) -> Iterator[Comparison]:
    """Time every implementation in turn with torch's attention.

    Args:
        settings: what to compare.
        implementations: names of `tsattn.ops.Impl`.
        rounds: how often each is timed.
        phases: among `PHASES`.
    """
    for setting in settings:
        inputs = _draw(setting)
        calls = {impl: _ours(setting, impl) for impl in implementations}
        calls["torch"] = _torchs(setting)
        for phase in phases:
            runs = {
                name: PREPARE[phase](call, as_handed_on(call, inputs))
                for name, call in calls.items()
            }
            found = _summarise(setting, phase, measure(runs, rounds))
            if any(one.is_slower for one in found):
                found = _summarise(setting, phase, measure(runs, _AGAIN * rounds, warm_up=0))
            yield from found


def table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows: a row has one length and all widths, ``!`` is below the limit."""
    widths = sorted({c.setting.width for c in comparisons})
    titles = ["rows", "impl", "dtype", "activation", "causal", "length", "phase"]
    cells: dict[tuple[str, ...], dict[int, str]] = {}
    for c in comparisons:
        s = c.setting
        causal = "causal" if s.is_causal else ""
        place = (s.group, c.impl, s.dtype, s.activation, causal, str(s.length), c.phase)
        mark = "!" if c.is_slower else ""
        cells.setdefault(place, {})[s.width] = f"{c.ratio.median:.2f}{mark}"
    rows = [[*place, *(row.get(w, "") for w in widths)] for place, row in cells.items()]
    return titles + [f"width {w}" for w in widths], rows


def summary(comparisons: Sequence[Comparison]) -> str:
    """Say how many ratios are below the limit, and which is the lowest."""
    below = sum(c.is_slower for c in comparisons)
    lowest = min(comparisons, key=lambda c: c.ratio.median / c.setting.limit)
    s = lowest.setting
    return (
        f"{below} of {len(comparisons)} below the limit ({LIMIT}, with residual scores "
        f"{RESIDUAL_LIMIT:.0f}); nearest to it or farthest below: {lowest.ratio.median:.2f}, "
        f"{lowest.impl} {lowest.phase}, {s.group}, {s.batch}x{s.heads} heads, length {s.length}, "
        f"width {s.width}, {s.dtype}, {s.activation}"
    )


def _draw(setting: Setting) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch, heads, length, width = setting.batch, setting.heads, setting.length, setting.width
    inputs: list[Tensor] = []
    for _ in range(3):
        if setting.layout == "heads last":
            drawn = torch.randn(batch, length, heads, width, generator=generator).transpose(1, 2)
        else:
            drawn = torch.randn(batch, heads, length, width, generator=generator)
        inputs.append(drawn)
    if setting.residual:
        inputs.append(torch.randn(batch, heads, length, length, generator=generator))
    return [t.to(DTYPES[setting.dtype]).requires_grad_() for t in inputs]


def _ours(setting: Setting, impl: str) -> Callable[..., Any]:
    def call(q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None = None) -> Any:
        return active_attention(
            q, k, v,
            activation=setting.activation, prev_scores=prev, return_scores=setting.residual,
            is_causal=setting.is_causal, dropout_p=setting.dropout_p, impl=impl,
        )  # fmt: skip

    return call


def _torchs(setting: Setting) -> Callable[..., Any]:
    sigma = VALUE_ACTIVATIONS[setting.activation]

    def call(q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, sigma(v), prev, dropout_p=setting.dropout_p, is_causal=setting.is_causal
        )

    return call


def _summarise(setting: Setting, phase: str, seconds: dict[str, list[float]]) -> list[Comparison]:
    theirs = seconds["torch"]
    found: list[Comparison] = []
    for impl, ours in seconds.items():
        if impl == "torch":
            continue
        ratio = speed_up(ours, theirs)
        found.append(
            Comparison(
                setting, impl, phase,
                Spread.of([1e3 * s for s in ours]), Spread.of([1e3 * s for s in theirs]),
                ratio, ratio.median < setting.limit,
            )
        )  # fmt: skip
    return found
