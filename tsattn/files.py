"""Writing files so that nobody ever meets a half of one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a file beside ``path`` to be written; it takes that place once the body has ended.

    A reader, an error, a full disk or a kill meets what was there before or all of the new one.
    Every call has a name of its own: of several writers at once the last one wins, and none fails.
    After an error the file is deleted; what a kill leaves, `sweep` deletes.

    Args:
        path: the file to replace; its folder must exist.
        durable: wait until the content has reached the disk, for what cannot be made again.
    """
    # the ending is not the file's own: nobody who looks for such files finds half a one
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        if durable:
            _flush(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text in one step, with the same bytes on every system."""
    with replacing(path) as file:
        file.write_bytes(text.encode())


def sweep(folder: Path) -> None:
    """Delete what `replacing` could not, because its process was killed.

    Args:
        folder: where nobody else writes now.
    """
    for file in folder.glob(".*.unfinished"):
        file.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
