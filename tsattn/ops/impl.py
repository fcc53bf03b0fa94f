"""Who computes an operation, and why somebody cannot."""

from enum import StrEnum
from typing import NamedTuple

import torch

from tsattn.ops import build


class Impl(StrEnum):
    """The implementations of an operation.

    ``auto`` chooses; every other name runs as asked or raises, it never falls back.
    """

    AUTO = "auto"
    REFERENCE = "reference"
    SDPA = "sdpa"
    CPU = "cpu"


class Availability(NamedTuple):
    """Whether an implementation can run on this machine."""

    name: str
    available: bool
    reason: str


def availability() -> list[Availability]:
    """List the implementations of active attention and what each is, or why it is missing."""
    return [
        Availability(Impl.REFERENCE, True, "the equation in plain torch, on every device"),
        Availability(Impl.SDPA, True, "torch's own attention, the activation outside"),
        Availability(Impl.CPU, *build.status()),
    ]


def taken_by_auto(device: torch.device) -> Impl:
    """Return what ``auto`` takes for float32 and bfloat16 tensors on a device."""
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
