"""Peak memory of training one contender of ``tsattn bench moe``, in a process of its own."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from tsattn.bench.footprint import peak_and_growth
from tsattn.bench.mixtures import contender, runs_of
from tsattn.bench.recipes import Recipe
from tsattn.memory import peak_resident_mib

_STEPS = 3


def measure_mixture(
    size: Recipe, part: str, name: str, precision: str, threads: int
) -> tuple[float, float] | None:
    """Return peak resident memory and its growth while training, in MiB; None where unknown.

    Args:
        size: the recipe.
        part: the feed-forward alone or the network.
        name: the contender.
        precision: ``float32`` or ``bf16``.
        threads: threads of torch.
    """
    words = [json.dumps(asdict(size)), part, name, precision, str(threads)]
    return peak_and_growth("tsattn.bench.mixture_memory", words)


def main(words: Sequence[str]) -> None:
    """Train a contender for a few steps and print the peak and the peak before, in MiB."""
    described, part, name, precision, threads = words
    torch.set_num_threads(int(threads))
    size = Recipe(**json.loads(described))
    # the first window brings in every library that training needs
    runs_of(contender(size.with_batch(1), part, name), precision)["step"]()
    before = peak_resident_mib()
    step = runs_of(contender(size, part, name), precision)["step"]
    for _ in range(_STEPS):
        step()
    print(json.dumps([peak_resident_mib(), before]))


if __name__ == "__main__":
    main(sys.argv[1:])
