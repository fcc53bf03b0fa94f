"""Peak memory of one contender's training, measured in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from tsattn.bench.contenders import contender, runs_of
from tsattn.bench.recipes import Recipe
from tsattn.memory import peak_resident_mib

_STEPS = 3
_TIMEOUT_SECONDS = 1800


def measure_memory(
    recipe: Recipe, name: str, threads: int, steps: int = _STEPS
) -> tuple[float, float] | None:
    """Return peak resident memory and its growth while training, in MiB; None where unknown.

    Args:
        recipe: a shipped recipe.
        name: the contender, see `tsattn.bench.train.names_of`.
        threads: threads of torch.
        steps: optimiser steps.
    """
    given = [json.dumps(asdict(recipe)), name, str(threads), str(steps)]
    return peak_and_growth("tsattn.bench.footprint", given)


def peak_and_growth(module: str, words: Sequence[str]) -> tuple[float, float] | None:
    """Run a module that prints its peak and the peak before what counts; None where it failed."""
    line = printed_by(module, words)
    if line is None:
        return None
    peak, before = json.loads(line)
    return None if peak is None else (peak, peak - before)


def printed_by(module: str, words: Sequence[str]) -> str | None:
    """Run a module in a process of its own; its last line, None where it failed."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(  # noqa: S603 (no shell; the words are ours)
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    return None if done.returncode else done.stdout.splitlines()[-1]


def main(words: Sequence[str]) -> None:
    """Train a contender for a few steps and print the peak and the peak before, in MiB."""
    described, name, threads, steps = words
    torch.set_num_threads(int(threads))
    recipe = Recipe(**json.loads(described))
    # the first window brings in every library that training needs
    precision = name.rsplit(" ", 1)[1]
    runs_of(contender(recipe.with_batch(2), name), precision)["step"]()
    before = peak_resident_mib()
    step = runs_of(contender(recipe, name), precision)["step"]
    for _ in range(int(steps)):
        step()
    print(json.dumps([peak_resident_mib(), before]))


if __name__ == "__main__":
    main(sys.argv[1:])
