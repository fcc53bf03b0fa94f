"""Peak memory of the operation: what a call adds, measured in a process of its own."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache

import torch

from tsattn.bench.footprint import printed_by
from tsattn.bench.kernels import BOTH, FORWARD, Case, prepared
from tsattn.memory import peak_resident_mib

KernelMemory = Callable[[Case, str, str, str, str], float | None]
"""Tells by case, dtype, activation, name and phase what a call adds, in MiB; None if unknown."""


def kernel_memory(threads: int) -> KernelMemory:
    """Return what measures by how many MiB the resident memory grows in a call.

    Inputs are there before and do not count; outputs, what is kept for the backward pass, its
    gradients and everything in between do. A process runs one implementation forwards, then
    forwards and backwards; libraries were loaded before by a call with a single sequence.

    Args:
        threads: threads of torch.
    """

    @cache
    def measured(case: Case, dtype: str, activation: str, name: str) -> dict[str, float]:
        words = [json.dumps(asdict(case)), dtype, activation, name, str(threads)]
        line = printed_by("tsattn.bench.kernel_memory", words)
        return {} if line is None else json.loads(line)

    def memory(case: Case, dtype: str, activation: str, name: str, phase: str) -> float | None:
        return measured(case, dtype, activation, name).get(phase)

    return memory


def main(words: Sequence[str]) -> None:
    """Print what each phase of one implementation adds, in MiB."""
    described, dtype, activation, name, threads = words
    torch.set_num_threads(int(threads))
    case = Case(**json.loads(described))
    given = (dtype, activation)
    prepared(replace(case, batch=1), *given, BOTH, name)()
    runs = {phase: prepared(case, *given, phase, name) for phase in (FORWARD, BOTH)}
    before = peak_resident_mib()
    grown: dict[str, float] = {}
    for phase, run in runs.items():
        run()
        after = peak_resident_mib()
        if before is not None and after is not None:
            grown[phase] = after - before
    print(json.dumps(grown))


if __name__ == "__main__":
    main(sys.argv[1:])
