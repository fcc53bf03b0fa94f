"""The command: run many inputs, show progress, and fail where one did what must not happen."""

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from tests.fuzz.running import Outcome, Prepared, prepare, run_input


def fuzz(numbers: list[int], seed: int, folder: Path, *, quiet: bool = False) -> list[Outcome]:
    """Run inputs by their numbers.

    Args:
        numbers: which inputs.
        seed: of the series.
        folder: an empty folder to work in.
        quiet: show no progress.
    """
    prepared = prepare(folder)
    if quiet:
        return [_run(number, seed, prepared, folder) for number in numbers]
    console = Console(stderr=True)
    return [
        _run(number, seed, prepared, folder)
        for number in track(numbers, "fuzzing", console=console)
    ]


def _run(number: int, seed: int, prepared: tuple[Prepared, ...], folder: Path) -> Outcome:
    with tempfile.TemporaryDirectory(dir=folder) as home, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_input(number, seed, prepared, Path(home))


def main() -> int:
    """Return 0 where every input ended in a forecast or a message."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one input, with its message")
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = list(range(given.inputs)) if given.only is None else [given.only]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(numbers, given.seed, Path(folder))
    for number, outcome in zip(numbers, outcomes, strict=True):
        if outcome.failed or given.only is not None:
            print(f"input {number}: {outcome.kind}\n  {outcome.made}\n{outcome.detail}\n")
    counts = Counter(outcome.kind for outcome in outcomes)
    slowest = max(outcome.seconds for outcome in outcomes)
    print(
        f"{len(outcomes)} inputs of seed {given.seed}: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        + f"; slowest {slowest:.1f} s"
    )
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
