"""Writing files so that nobody ever meets a half of one."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

_UNFINISHED = ".unfinished"
_STALE_SECONDS = 600.0


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a file beside ``path`` to be written; it takes that place once the body has ended.

    A reader, an error, a full disk or a kill meets what was there before or all of the new one.
    Every call has a name of its own: of several writers at once the last one wins, and none fails
    (but on Windows, which replaces no file that somebody has open). After an error the file is
    deleted; what a kill leaves is deleted by whoever writes the same file later than ten minutes.

    Args:
        path: the file to replace; its folder must exist.
        durable: wait until the content has reached the disk, for what cannot be made again.
    """
    _delete_stale(path)
    # the ending is not the file's own: nobody who looks for such files finds half a one
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
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


def is_unfinished(path: Path) -> bool:
    """Whether a file was being written, or its writer was killed: it is nobody's content."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


def _delete_stale(path: Path) -> None:
    for left in path.parent.glob(f".{escape(path.name)}.*{_UNFINISHED}"):
        with suppress(OSError):  # somebody else has deleted it
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
