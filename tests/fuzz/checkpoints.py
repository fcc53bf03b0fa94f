"""Ways in which a checkpoint can be broken."""

import copy
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tsattn.training.checkpoint import RECORD

Mutate = Callable[[bytes, random.Random, Path], bytes]

CANARY = "executed"
"""The file that code in a checkpoint makes, should it ever be executed."""

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**12, -(10**18), 2**70, 0.5, float("nan"), float("inf"), "", "x", "P1D",
    "PT0S", "months:0", "months:-3", "months:999999999", "-P1D", "P99999999999D", "mask", "error",
    [], ["a"], ["a"] * 100_000, [[]], {}, {"class": "os.system"}, (), b"bytes", 1j, "a\x00b",
    torch.zeros(0), torch.zeros(3), torch.full((1, 3), float("nan")), torch.zeros(2, 3, 4),
    torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.complex64),
    torch.ones(1, 3, dtype=torch.bool), torch.ones(3).to_sparse(), torch.tensor(1e300),
    torch.ones(1, 3, dtype=torch.float16), torch.empty(1, 3, device="meta"),
)  # fmt: skip


class Bomb:
    """An object whose unpickling runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Make the canary."""
        return os.system, (f"touch {self.path / CANARY}",)


def _content(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), weights_only=True)


def _bytes(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(node, dict):
        for key, value in node.items():
            found += _places(value, (*path, key))
    elif isinstance(node, list) and len(node) < 50:
        for key, value in enumerate(node):
            found += _places(value, (*path, key))
    return found


def _changed(content: Any, path: tuple[Any, ...], value: Any, *, remove: bool = False) -> Any:
    changed = copy.deepcopy(content)
    node = changed
    for key in path[:-1]:
        node = node[key]
    if remove:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def flip_bits(data: bytes, draw: random.Random, folder: Path) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 20, 500))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flip_header_bits(data: bytes, draw: random.Random, folder: Path) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 3))):
        place = draw.randrange(400) * draw.choice((1, -1))
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def truncate(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return data[: draw.choice((0, 1, draw.randrange(len(data)), len(data) - 1))]


def lengthen(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return draw.choice((data + draw.randbytes(99), draw.randbytes(99) + data, data + data))


def _rezipped(
    data: bytes, change: Callable[[list[tuple[str, bytes]]], None], method: int = 0
) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(info.filename, archive.read(info)) for info in archive.infolist()]
    change(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, part in parts:
            archive.writestr(name, part)
    return buffer.getvalue()


def swap_entries(data: bytes, draw: random.Random, folder: Path) -> bytes:
    def change(parts: list[tuple[str, bytes]]) -> None:
        i, j = draw.randrange(len(parts)), draw.randrange(len(parts))
        parts[i], parts[j] = (parts[i][0], parts[j][1]), (parts[j][0], parts[i][1])

    return _rezipped(data, change)


def remove_entry(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return _rezipped(data, lambda parts: parts.pop(draw.randrange(len(parts))) and None)


def rename_entry(data: bytes, draw: random.Random, folder: Path) -> bytes:
    def change(parts: list[tuple[str, bytes]]) -> None:
        place = draw.randrange(len(parts))
        name = draw.choice(("../../evil", "/tmp/evil", "x", "archive/data.pkl", "a" * 9000))
        parts[place] = (name, parts[place][1])

    return _rezipped(data, change)


def spoil_entry(data: bytes, draw: random.Random, folder: Path) -> bytes:
    """Change a part and give it the right checksum."""

    def change(parts: list[tuple[str, bytes]]) -> None:
        place = draw.randrange(len(parts))
        name, part = parts[place]
        spoilt = bytearray(part or b"x")
        for _ in range(draw.choice((1, 5))):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        cut = draw.choice((len(spoilt), len(spoilt), draw.randrange(len(spoilt) + 1)))
        parts[place] = (name, bytes(spoilt[:cut]))

    return _rezipped(data, change)


def compress(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return _rezipped(data, lambda parts: None, zipfile.ZIP_DEFLATED)


def bomb_of_zeros(data: bytes, draw: random.Random, folder: Path) -> bytes:
    def change(parts: list[tuple[str, bytes]]) -> None:
        parts.append(("archive/data/99", bytes(1 << 26)))

    return _rezipped(data, change, zipfile.ZIP_DEFLATED)


def code(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    path = draw.choice(_places(content))
    return _bytes(
        draw.choice((Bomb(folder), _changed(content, path, Bomb(folder)))),
        _use_new_zipfile_serialization=draw.random() < 0.7,
    )


def other_object(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return _bytes(draw.choice(JUNK))


def old_container(data: bytes, draw: random.Random, folder: Path) -> bytes:
    whole = _bytes(_content(data), _use_new_zipfile_serialization=False)
    return draw.choice((whole, truncate(whole, draw, folder), flip_bits(whole, draw, folder)))


def other_format(data: bytes, draw: random.Random, folder: Path) -> bytes:
    value = draw.choice((0, -1, 2, 10**9, "1", 1.0, None, True, [1]))
    return _bytes(_changed(_content(data), (RECORD, "format"), value))


def junk_in_record(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    for _ in range(draw.choice((1, 1, 2))):
        places = [path for path in _places(content) if path[0] == RECORD]
        content = _changed(content, draw.choice(places), draw.choice(JUNK))
        if not isinstance(content.get(RECORD), dict):
            break
    return _bytes(content)


def junk_anywhere(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    return _bytes(_changed(content, draw.choice(_places(content)), draw.choice(JUNK)))


def lacking(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    return _bytes(_changed(content, draw.choice(_places(content)), None, remove=True))


def huge_sizes(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    places = [
        path
        for path in _places(content[RECORD], (RECORD,))
        if isinstance(_at(content, path), int) and not isinstance(_at(content, path), bool)
    ]
    size = draw.choice((0, -1, 10**4, 10**6, 10**7, 10**9, 10**15))
    return _bytes(_changed(content, draw.choice(places), size))


def _at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def spoil_weights(data: bytes, draw: random.Random, folder: Path) -> bytes:
    content = _content(data)
    name = draw.choice(list(content["state_dict"]))
    old = content["state_dict"][name]
    floating = old if old.is_floating_point() else old.float()  # a norm counts its batches
    new = draw.choice(
        (
            torch.full_like(floating, float("nan")),
            torch.full_like(floating, float("inf")),
            torch.full_like(floating, 3e38),
            old.double(),
            old.half(),
            old.long(),
            old.flatten()[:-1],
            old.unsqueeze(0),
            old.expand(3, *old.shape),
            old.to_sparse(),
            old.to("meta"),
            old.to(torch.complex64),
            old.numpy().tolist(),
        )
    )
    return _bytes(_changed(content, ("state_dict", name), new))


def text(data: bytes, draw: random.Random, folder: Path) -> bytes:
    return draw.choice((b"", b"seed: 1\n", b"{}", b"PK\x05\x06" + bytes(18), b"\x80\x02}q\x00."))


MUTATIONS: tuple[Mutate, ...] = (
    flip_bits, flip_header_bits, truncate, lengthen, swap_entries, remove_entry, rename_entry,
    spoil_entry, spoil_entry, compress, bomb_of_zeros, code, other_object, old_container,
    other_format, junk_in_record, junk_in_record, junk_in_record, junk_anywhere, lacking, lacking,
    huge_sizes, huge_sizes, spoil_weights, text,
)  # fmt: skip
