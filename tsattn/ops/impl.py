"""Who computes an operation, and why somebody cannot."""

import os
from enum import StrEnum
from importlib.util import find_spec
from typing import NamedTuple

import torch

from tsattn.errors import ConfigError, MissingExtraError
from tsattn.ops import build
from tsattn.ops.compiling import constant_when_compiled

_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Impl(StrEnum):
    """The implementations of an operation.

    ``auto`` chooses; every other name runs as asked or raises, it never falls back.
    """

    AUTO = "auto"
    REFERENCE = "reference"
    SDPA = "sdpa"
    CPU = "cpu"
    TRITON = "triton"


class Availability(NamedTuple):
    """Whether an implementation can run on this machine."""

    name: str
    available: bool
    reason: str


def availability() -> list[Availability]:
    """List the implementations of active attention and what each is, or why it is missing."""
    refusal = triton_refusal()
    what = "fused kernels for CUDA devices, forward and backward; no timing on a GPU exists yet"
    if triton_is_interpreted():
        what = "in Triton's interpreter (TRITON_INTERPRET), on CPU tensors: for tests, very slow"
    return [
        Availability(Impl.REFERENCE, True, "the equation in plain torch, on every device"),
        Availability(Impl.SDPA, True, "torch's own attention, the activation outside"),
        Availability(Impl.CPU, *build.status()),
        Availability(Impl.TRITON, refusal is None, refusal or what),
    ]


def taken_by_auto(device: torch.device) -> Impl:
    """Return what ``auto`` takes for float32 and bfloat16 tensors on a device."""
    if triton_is_wanted(device, torch.float32):
        return Impl.TRITON
    return Impl.CPU if device.type == "cpu" and build.is_ready() else Impl.SDPA


def as_impl(impl: str | Impl) -> Impl:
    """Return the member of `Impl` that a name means.

    Raises:
        ValueError: no implementation has this name.
    """
    try:
        return Impl(impl)
    except ValueError:
        known = ", ".join(Impl)
        raise ValueError(f"unknown impl {impl!r}; expected one of {known}") from None


def triton_is_interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@constant_when_compiled
def triton_refusal() -> str | None:
    """Say why Triton kernels cannot run on this machine; ``None`` where they can."""
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'tsattn[triton]' (Linux)"
    if triton_is_interpreted():
        return None
    if not torch.cuda.is_available():
        return "there is no CUDA device (for tests, TRITON_INTERPRET=1 runs it on a CPU, slowly)"
    if torch.version.hip is not None:
        return "the kernels are made for NVIDIA's devices, and this is a ROCm build of torch"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return f"compute capability 8.0 or higher is needed, and this device has {major}.{minor}"
    return None


def triton_is_wanted(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``auto`` takes the Triton kernels: for CUDA tensors, where they can run."""
    on_gpu = device.type == "cuda" and not triton_is_interpreted()
    return on_gpu and dtype in _TRITON_DTYPES and triton_refusal() is None


def require_triton(device: torch.device, dtype: torch.dtype) -> None:
    """Do nothing where the Triton kernels can take such tensors.

    Raises:
        MissingExtraError: triton is not installed.
        ConfigError: the machine, the device or the dtype is not one of theirs.
    """
    refusal = triton_refusal()
    if refusal is not None:
        kind = ConfigError if find_spec("triton") else MissingExtraError
        raise kind(f"impl 'triton' cannot run: {refusal}; or choose 'auto'")
    wanted = "cpu" if triton_is_interpreted() else "cuda"
    if device.type != wanted:
        raise ConfigError(
            f"impl 'triton' takes tensors on {wanted} here, got {device}; move them, or choose "
            "'auto'"
        )
    if dtype not in _TRITON_DTYPES:
        known = ", ".join(str(known) for known in _TRITON_DTYPES)
        raise ConfigError(
            f"impl 'triton' takes {known}, got {dtype}; convert the tensors, or choose 'auto'"
        )
