"""The Triton kernels on a machine without a GPU: interpreted here, compiled for elsewhere."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.ops.attention_cases import Case
from tsattn.ops import impl as impl_module
from tsattn.ops.attention import triton_op

NEEDS_TRITON = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed: pip install 'tsattn[triton]'"
)
NOT_INTERPRETED = pytest.mark.skipif(
    impl_module.triton_is_interpreted(), reason="TRITON_INTERPRET is set: nothing is compiled"
)


class Launch(NamedTuple):
    kernel: Any
    arguments: dict[str, Any]
    warps: int

    def __str__(self) -> str:
        return f"{self.kernel.fn.__name__} of {self.arguments['WIDTHS']}"


@NEEDS_TRITON
@pytest.mark.timeout(1800)  # a minute where nobody else computes
@pytest.mark.slow
def test_the_kernels_hold_in_the_interpreter(root: Path) -> None:
    """The common tests of the operation, save those that `triton_interpreted` has beside."""
    here = root / "tests" / "ops"
    files = [here / "test_active_attention.py", here / "triton_interpreted.py"]
    ours = "triton and not (test_active_attention and (budget or drops or sum_to_one))"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=0", "-k", ours]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def launches_of(case: Case, dtype: torch.dtype, dropout_p: float) -> list[Launch]:
    """Return what a training step of this case would run on a GPU."""
    found: list[Launch] = []

    def record(kernel: Any, _: int, arguments: dict[str, Any], warps: int) -> None:
        found.append(Launch(kernel, arguments, warps))

    tensors = case.inputs(dtype)
    q, k, v = (tensors[name].requires_grad_() for name in "qkv")
    previous = tensors["prev_scores"].requires_grad_() if case.prev_scores else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsattn.ops.attention.fused_triton.launch", record)
        output, scores = triton_op.attend(
            q, k, v, activation=str(case.activation), prev_scores=previous,
            return_scores=case.return_scores, mask=tensors.get("mask"), is_causal=case.is_causal,
            dropout_p=dropout_p, scale=0.5,
        )  # fmt: skip
        (output.sum() if scores is None else output.sum() + scores.square().sum()).backward()
    return found


SHAPES = {
    "ETTh1": Case(width=4, activation="gelu", prev_scores=True, return_scores=True),
    "Weather": Case(width=8, activation="tanh", prev_scores=True, return_scores=True),
    "16 wide": Case(width=16, activation="sigmoid", prev_scores=True, return_scores=True),
    # Networks hand on factors of the scores: the third layer has queries of three times the width.
    "Weather, third layer": Case(width=24, value_width=8, activation="relu"),
    "16 wide, third layer": Case(width=48, value_width=16, activation="silu"),
    "Transformer": Case(queries=336, heads=8, width=64, activation="gelu", is_causal=True),
    "everything, long": Case(
        queries=100, keys=200, heads=2, width=16, activation="silu", mask="holes",
        prev_scores=True, return_scores=True,
    ),
}  # fmt: skip


@NEEDS_TRITON
@NOT_INTERPRETED
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(shape, torch.float32) for shape in SHAPES]
    + [(shape, torch.bfloat16) for shape in ("Weather", "16 wide", "Transformer")],
    ids=str,
)
def test_kernels_compile_for_gpus_without_spilling_registers(
    shape: str, dtype: torch.dtype, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.ops.triton_compiled import usage_on

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = launches_of(SHAPES[shape], dtype, dropout_p=0.2)
    assert len(launches) in (2, 3)
    for launch in launches:
        usage = usage_on(capability, *launch)
        assert usage.spills == 0, f"{launch}: {usage}"
        assert usage.stack_bytes == 0, f"{launch}: {usage}"
        assert 0 < usage.registers <= 255
        assert usage.shared_bytes <= 99 * 1024, f"{launch}: {usage}"  # the least of 8.x


@NEEDS_TRITON
@NOT_INTERPRETED
def test_a_kernel_that_spills_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.ops.triton_compiled import usage_on

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forward, *_ = launches_of(SHAPES["ETTh1"], torch.float32, dropout_p=0.2)
    usage = usage_on(80, *forward, registers=32)
    assert usage.registers == 32
    assert usage.spills > 0
    assert usage.stack_bytes > 0
