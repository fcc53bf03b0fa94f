"""Writing checkpoints so that a kill or a full disk costs nothing."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from tsattn.errors import CheckpointNotSavedError
from tsattn.files import replacing
from tsattn.training.checkpoint import read_checkpoint


class SafeCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its final name and moves it there once it is whole.

    A full disk or a kill while writing leaves the previous checkpoint as it was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write, flush to the disk, rename."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path, durable=True) as unfinished, unfinished.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            kept = "the previous one is kept" if path.exists() else "there was none before"
            raise CheckpointNotSavedError(
                f"could not save {path}: {error}; {kept}. Free some space and resume with "
                "--ckpt_path last"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read onto the CPU; pickled code is refused whatever ``weights_only`` says."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)
