"""Tensors in safetensors files: one way to write them, one way to read them."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tsattn.errors import CheckpointError
from tsattn.files import replacing

_LENGTH = 8  # bytes of the number that a file begins with: how long its header is


class Digest(NamedTuple):
    """How long a file is, and its checksum.

    Attributes:
        size: its length in bytes.
        sha256: of its content, in hexadecimal digits.
    """

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """Return those of a file's content."""
        return cls(len(content), sha256(content).hexdigest())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, str]) -> Digest:
    """Write tensors in one step; the same ones give the same bytes.

    Args:
        path: the file.
        tensors: by name, on the CPU.
        note: text that travels in the file's header; one entry at most, several come in any order.
    """
    alone = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    content = save(alone, metadata=dict(note))
    write_bytes(path, content)
    return Digest.of(content)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step, after it has reached the disk."""
    with replacing(path, durable=True) as file:
        file.write_bytes(content)


def read_tensors(
    path: Path, digest: Digest | None = None
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a file by name, and the note in its header.

    Args:
        path: the file.
        digest: what its content has to be; compared before anything in it is looked at.

    Raises:
        CheckpointError: no such file, one of another length or checksum, a damaged or foreign one.
    """
    content = read_bytes(path, digest)
    try:
        tensors = load(content)  # refuses sizes, types and places that cannot be
        length = int.from_bytes(content[:_LENGTH], "little")
        header: Any = json.loads(content[_LENGTH : _LENGTH + length])
    except (AssertionError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} ({len(content)} bytes) cannot be read: {error}; take another one"
        ) from error
    return tensors, header.get("__metadata__") or {}


def read_bytes(path: Path, digest: Digest | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        digest: what it has to be; the length is compared before the file is read.

    Raises:
        CheckpointError: no such file, or one of another length or checksum.
    """
    try:
        size = path.stat().st_size
        if digest is not None and size != digest.size:
            raise CheckpointError(
                f"{path} has {size} bytes, its record says {digest.size}: cut short or exchanged; "
                "copy or export it again"
            )
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if digest is not None and (found := Digest.of(content)) != digest:
        raise CheckpointError(
            f"{path} was changed after it was written: its sha256 begins with {found.sha256[:12]}, "
            f"its record says {digest.sha256[:12]}; copy or export it again"
        )
    return content
