"""The peak of a process's memory."""

import subprocess
import sys

import torch

FRESH = """
from tsattn.memory import peak_resident_mib
before = peak_resident_mib()
held = bytearray(b"x") * (64 * 2**20)
del held
print(before, peak_resident_mib())
"""


def test_peak_keeps_what_was_held_and_leaves_out_the_process_that_started_this_one() -> None:
    held = torch.ones(256 * 2**20 // 4)
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 0 < before < held.nbytes / 2**20
    assert 60 < after - before < 80
