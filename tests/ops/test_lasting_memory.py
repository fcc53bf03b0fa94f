"""Large results of the compiled kernels lie in memory that is kept for the next of their size."""

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tsattn.ops import active_attention

pytestmark = pytest.mark.needs_kernels

_MIB = 1 << 20


def _scores(batch: int, fill: float = 1.0) -> Tensor:
    """A plane of ``batch`` MiB (16 heads, 128 queries, 128 keys) whose values are ``4 fill``."""
    q = torch.full((batch, 16, 128, 4), fill)
    k = torch.full((batch, 16, 128, 4), 2.0)
    _, scores = active_attention(q, k, k, return_scores=True, impl="cpu")
    assert scores.nbytes == batch * _MIB
    return scores


def test_memory_of_what_is_gone_is_taken_again() -> None:
    first = _scores(8)
    address = first.data_ptr()
    del first
    other = torch.empty(8 * _MIB, dtype=torch.uint8)  # whatever the system would give out again
    assert _scores(8).data_ptr() == address != other.data_ptr()


def test_memory_in_use_is_nobody_elses() -> None:
    kept = [_scores(2, fill) for fill in (1.0, 2.0, 3.0)]
    view = kept[1][1]
    del kept[1]
    later = [_scores(2, fill) for fill in (4.0, 5.0)]
    addresses = {x.untyped_storage().data_ptr() for x in (*kept, view, *later)}
    assert len(addresses) == 5
    for x, fill in zip((kept[0], view, kept[1], *later), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True):
        assert torch.equal(x, torch.full_like(x, 4 * fill))


BOUNDED = """
import gc, torch
from tests.ops.test_lasting_memory import _resident_bytes, _scores
_scores(1)
gc.collect()
before = _resident_bytes()
for batch in (33, 38, 43, 49, 56, 63, 72, 82, 94):
    _scores(batch)
print((_resident_bytes() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("limit", "least", "most"), [("256", 150, 300), ("0", 0, 60)])
def test_what_is_kept_is_bounded(limit: str, least: int, most: int, root: Path) -> None:
    # Sizes that cannot share a block, and are the system's again once they are freed: 500 MiB and
    # more, were all of them kept.
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED],
        env=os.environ | {"TSATTN_KEEP_MIB": limit},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) < most


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_many_threads_take_and_give_back() -> None:
    def are_right(fill: float) -> bool:
        planes = (_scores(1, fill) for _ in range(20))
        return all(torch.equal(x, torch.full_like(x, 4 * fill)) for x in planes)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(are_right, (1.0, 2.0, 3.0, 4.0)))


def test_large_results_can_be_resized() -> None:
    grown = _scores(2).mT
    grown.untyped_storage().resize_(3 * _MIB)
    assert torch.equal(grown, torch.full_like(grown, 4.0))
    emptied = _scores(2)
    emptied.untyped_storage().resize_(0)
    assert emptied.untyped_storage().nbytes() == 0


def test_deterministic_algorithms_take_memory_that_torch_fills() -> None:
    first = _scores(8)
    kept = first.data_ptr()
    del first
    torch.use_deterministic_algorithms(True)
    try:
        filled = _scores(8)
        assert filled.data_ptr() != kept
        assert torch.equal(filled, torch.full_like(filled, 4.0))
    finally:
        torch.use_deterministic_algorithms(False)
