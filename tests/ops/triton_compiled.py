"""Compiles launches of the Triton kernels for GPUs that need not be there, and reads the result."""

import re
import subprocess
import tempfile
from typing import Any, NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor
from triton import knobs  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

from tsattn.ops.attention import fused_triton

_TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "i64", torch.uint8: "u8"}


class Usage(NamedTuple):
    """What a kernel needs: registers and stack of a thread, and instructions that spill."""

    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int


def usage_on(
    capability: int,
    kernel: Any,
    arguments: dict[str, Any],
    warps: int,
    registers: int | None = None,
) -> Usage:
    """Compile one launch for a compute capability (80, 90) and read what the machine code needs."""
    compiled = triton.compile(
        _source(kernel, arguments),
        target=GPUTarget("cuda", capability, 32),
        options=fused_triton.options(warps) | {"maxnreg": registers},
    )
    tool = knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        resources, code = (
            subprocess.check_output([tool, what, file.name], text=True)
            for what in ("-res-usage", "-sass")
        )
    assert "EXIT" in code
    used, stack = (
        int(re.search(rf"{name}:(\d+)", resources)[1])  # pyright: ignore[reportOptionalSubscript]
        for name in ("REG", "STACK")
    )
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return Usage(used, stack, spills, compiled.metadata.shared)


def _source(kernel: Any, arguments: dict[str, Any]) -> ASTSource:
    """Specialise as a launch would: ones and missing tensors are constants, alignment is known."""
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}

    def describe(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, Tensor):
            attributes[path] = [["tt.divisibility", 16]]
            return "*" + _TYPES[value.dtype]
        if isinstance(value, tuple):
            inner = [describe(item, (*path, i)) for i, item in enumerate(value)]
            return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
        if isinstance(value, float):
            return "fp32"
        if value is None or value == 1:
            constants[path] = value
            return "constexpr"
        if value % 16 == 0:
            attributes[path] = [["tt.divisibility", 16]]
        return "i32"

    for position, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(position,)] = "constexpr", value
        else:
            signature[parameter.name] = describe(value, (position,))
    return ASTSource(kernel, signature, constants, attributes)
