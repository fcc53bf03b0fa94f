"""What holds for every compiled operation."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.calls import Calls
from tests.ops.fused_operations import OPERATIONS, results
from tsattn.ops import build

pytestmark = pytest.mark.skipif(not build.is_ready(), reason=build.status().reason)
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def test_every_compiled_operator_is_tested_here() -> None:
    names = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    compiled = {name.partition(".")[0] for name in names if name.startswith("tsattn::")}
    assert len(compiled) > 8
    if "encoder torch.float32" not in OPERATIONS:
        compiled -= {"tsattn::encode"}  # this processor's layers are called one by one
    with Calls() as calls:
        for operation in OPERATIONS.values():
            results(operation)
    assert compiled - calls.names == set()


@every_operation
def test_one_and_two_threads_give_the_same_bits(name: str) -> None:
    alone = results(OPERATIONS[name])
    torch.set_num_threads(2)
    try:
        together = results(OPERATIONS[name])
    finally:
        torch.set_num_threads(1)
    for one, two in zip(alone, together, strict=True):
        assert torch.equal(one, two)


@every_operation
def test_a_second_derivative_is_right_or_refused_with_what_to_do(name: str) -> None:
    torch.manual_seed(8)
    outputs, leaves = OPERATIONS[name]()
    if not leaves:
        pytest.skip("it has no first one either, and says so")
    if name.startswith(("dropout", "add_dropout")):  # linear: their own derivative
        outputs = tuple(output.square() for output in outputs)
        total = sum(output.sum() for output in outputs)
        assert isinstance(total, torch.Tensor)
        (first, *_) = torch.autograd.grad(total, leaves, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaves[0])
        kept = second != 0
        scale = second[kept].float().mean()
        torch.testing.assert_close(second.float(), kept.float() * scale, rtol=1e-2, atol=1e-3)
        return
    with pytest.raises(RuntimeError, match=r'first deriv.*plain_torch.*impl="reference"'):
        torch.autograd.grad(outputs[0].float().sum(), leaves, create_graph=True, allow_unused=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that fills its memory")
def test_nothing_is_read_before_it_is_written(root: Path) -> None:
    """Scratch memory holds one pattern of bits and then another: no result changes."""
    said: list[str] = []
    for pattern in ("1", "128", "255"):  # bytes of 0xFE (huge negative), 0x7F (huge), 0x00
        done = subprocess.run(
            [sys.executable, "-m", "tests.ops.fused_operations"],
            env=os.environ | {"MALLOC_PERTURB_": pattern},
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0].count("\n") == len(OPERATIONS)
    assert said[0] == said[1] == said[2]
