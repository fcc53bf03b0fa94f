"""How timings are shown: a table on the terminal, Markdown for the docs, JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tsattn.bench import auto, forecasting, memory, mixture_timing
from tsattn.bench.auto import Comparison
from tsattn.bench.forecasting import ForecastTiming
from tsattn.bench.gate import Check
from tsattn.bench.kernels import KernelTiming
from tsattn.bench.machine import busy_warning
from tsattn.bench.memory import MemoryUse
from tsattn.bench.mixture_timing import MixtureTiming
from tsattn.bench.timing import Spread
from tsattn.bench.train import TrainTiming
from tsattn.errors import ExistsError
from tsattn.files import write_atomically

Timings = (
    Sequence[KernelTiming]
    | Sequence[TrainTiming]
    | Sequence[Comparison]
    | Sequence[MemoryUse]
    | Sequence[MixtureTiming]
    | Sequence[ForecastTiming]
)
Cells = list[str]
_WORDS = {
    "case", "recipe", "rows", "impl", "dtype", "activation", "causal", "phase", "who", "batch",
    "layers", "how", "part", "precision", "task",
}  # fmt: skip


def refuse_existing(path: Path | None, *, overwrite: bool) -> None:
    """Refuse, before anything is measured, to replace a file unasked; make its folder.

    Raises:
        ExistsError: the file exists and ``overwrite`` is off.
        OSError: there is no folder for it, and none can be made.
    """
    if path and path.exists() and not overwrite:
        raise ExistsError(f"{path} exists; choose another name, or replace it with --overwrite")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)


def write_json(
    path: Path,
    machine: Mapping[str, Any],
    ceilings: Mapping[str, Any],
    checks: Sequence[Check],
    timings: Timings,
) -> None:
    """Write everything that was measured."""
    content = {
        "machine": dict(machine),
        "ceilings": dict(ceilings),
        "checks": [asdict(check) for check in checks],
        "timings": [asdict(timing) for timing in timings],
    }
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def header(machine: Mapping[str, Any]) -> list[str]:
    """Return the lines that say where this was measured, a warning last where one is due."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    load = machine["load"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
        f"{versions}; {machine['system']}",
    ]
    if load is not None:
        lines.append(f"load average before: {load:.2f}")
    warning = busy_warning(load)
    return [*lines, f"warning: {warning}"] if warning else lines


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """Say how many checks passed, and name those that did not."""
    failed = [check for check in checks if not check.passed]
    for check in failed:
        console.print(f"wrong: {check.name}: {check.detail}", style="red")
    if failed:
        console.print(
            f"{len(failed)} of {len(checks)} checks failed; nothing is timed",
            style="red",
        )
    else:
        console.print(f"{len(checks)} checks passed", style="green")


def rows_of(timings: Timings) -> tuple[Cells, list[Cells]]:
    """Return the column titles and the rows of a table."""
    if compared := _comparisons(timings):
        return auto.table(compared)
    if used := [t for t in timings if isinstance(t, MemoryUse)]:
        return memory.table(used)
    if mixed := _mixtures(timings):
        return mixture_timing.table(mixed)
    if forecasts := [t for t in timings if isinstance(t, ForecastTiming)]:
        return forecasting.table(forecasts)
    timed = [t for t in timings if isinstance(t, KernelTiming | TrainTiming)]
    peers = list(dict.fromkeys(peer for timing in timed for peer in timing.speed_ups))
    rows = [_cells(timing) + [_ratio(timing.speed_ups.get(p)) for p in peers] for timing in timed]
    if timed and isinstance(timed[0], KernelTiming):
        titles = ["case", "dtype", "activation", "phase", "who", "ms", "of product"]
        titles += ["of copy", "peak MiB"]
    else:
        titles = ["recipe", "phase", "who", "ms", "GFLOP/s", "of ceiling", "peak MiB"]
    return titles + [f"x {peer}" for peer in peers], rows


def _cells(timing: KernelTiming | TrainTiming) -> Cells:
    peak = "" if timing.peak_mib is None else f"{timing.peak_mib:.0f}"
    if isinstance(timing, KernelTiming):
        place = [timing.case, timing.dtype, timing.activation, timing.phase, timing.name]
        shares = [_percent(timing.arithmetic_share), _percent(timing.traffic_share)]
        return [*place, _time(timing.milliseconds), *shares, peak]
    place = [timing.recipe, timing.phase, timing.name, _time(timing.milliseconds)]
    return [*place, f"{timing.gflops:.0f}", _percent(timing.share), peak]


def show_table(timings: Timings, console: Console) -> None:
    """Print the timings as a table."""
    titles, rows = rows_of(timings)
    table = Table(title=_caption(timings), title_justify="left")
    for title in titles:
        words = title in _WORDS
        table.add_column(title, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in _below(timings):
        console.print(line)


def markdown(machine: Mapping[str, Any], timings: Timings) -> str:
    """Return the header and the timings as Markdown."""
    titles, rows = rows_of(timings)
    lines = [*(f"{line}  " for line in header(machine)), "", _caption(timings), ""]
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n{line}" for line in _below(timings))]) + "\n"


def _caption(timings: Timings) -> str:
    if _comparisons(timings):
        return "times faster than torch's attention with the activation outside; ! is too slow"
    if timings and isinstance(timings[0], MemoryUse):
        return "largest resident memory of a process that trains one network on one batch"
    return "medians (smallest to largest) of paired rounds"


def _below(timings: Timings) -> list[str]:
    compared = _comparisons(timings)
    mixed = _mixtures(timings)
    if mixed:
        return [mixture_timing.summary(mixed)]
    return [auto.summary(compared)] if compared else []


def _mixtures(timings: Timings) -> list[MixtureTiming]:
    return [timing for timing in timings if isinstance(timing, MixtureTiming)]


def _comparisons(timings: Timings) -> list[Comparison]:
    return [timing for timing in timings if isinstance(timing, Comparison)]


def _time(spread: Spread) -> str:
    return f"{spread.median:.3g} ({spread.lowest:.3g} to {spread.highest:.3g})"


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.2f} ({spread.lowest:.2f} to {spread.highest:.2f})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
