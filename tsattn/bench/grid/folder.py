"""Where a cell lives while it is trained: in the user's cache, by its key."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tsattn.bench.rows import Key
from tsattn.data.load import cache_dir
from tsattn.training.folder import RunFolder


@dataclass(frozen=True)
class CellFolder:
    """Where a cell lives while it is trained: ``<cache>/cells/<key>/``."""

    path: Path

    @classmethod
    def of(cls, key: Key) -> "CellFolder":
        """Return the folder of a cell in the user's cache."""
        return cls(cache_dir() / "cells" / key.name)

    @property
    def run(self) -> RunFolder:
        """The run itself."""
        return RunFolder(self.path / "run")

    @property
    def weights(self) -> Path:
        """The best checkpoint as safetensors."""
        return self.path / "best.safetensors"

    @property
    def outcome(self) -> Path:
        """The row, written by the process that ran the cell for the one that appends it."""
        return self.path / "outcome.json"

    @property
    def made_by(self) -> Path:
        """What trained the cell, a note for each stretch."""
        return self.path / "made-by.json"

    @property
    def log(self) -> Path:
        """All that the runs of this cell printed."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that is at the cell."""
        return self.path / "lock"

    @property
    def is_busy(self) -> bool:
        """Whether a process is at the cell now."""
        if not self.lock.exists():
            return False
        try:
            with FileLock(self.lock, timeout=0):
                return False
        except Timeout:
            return True
