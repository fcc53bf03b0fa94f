"""What trained a cell: noted in its folder while it trains, whoever finishes it later."""

import json
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from tsattn.bench.grid.folder import CellFolder
from tsattn.files import write_atomically
from tsattn.training.result import environment

_VERSIONS = ("tsattn", "torch", "lightning", "python")
_NOTED = ("commit", "device", "devices", "threads", "precision", "attention")


class MadeBy(Callback):
    """Notes commit, versions and machine at the first epoch that this process trains.

    A cell that was interrupted has a note for each stretch; what only tests a finished one has
    none, so that its row names the code that trained it.

    Args:
        folder: of the cell.
    """

    def __init__(self, folder: CellFolder) -> None:
        self.folder = folder
        self.noted = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note it, before the epoch's checkpoint is written."""
        if self.noted or not trainer.is_global_zero:
            return
        self.noted = True
        before = stretches(self.folder) if trainer.current_epoch else []
        now = environment(trainer)
        note = {name: now[name] for name in _NOTED} | {n: now["versions"][n] for n in _VERSIONS}
        if before[-1:] != [note]:
            write_atomically(self.folder.made_by, json.dumps([*before, note], indent=2) + "\n")


def stretches(folder: CellFolder) -> list[dict[str, Any]]:
    """Return the notes of a cell in order; none where an older version trained it."""
    try:
        found = json.loads(folder.made_by.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def provenance(folder: CellFolder, tested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that say what trained a cell.

    Words of several stretches are joined by semicolons; numbers are those of the last one.

    Args:
        folder: of the cell.
        tested: the columns of the process that tested it, for a cell without notes.
    """
    notes = stretches(folder)
    if not notes:
        return dict(tested)
    made: dict[str, Any] = {}
    for name, value in tested.items():
        given = [note[name] for note in notes if note.get(name) is not None]
        words = dict.fromkeys(one for one in given if isinstance(one, str) and one)
        numbers = [one for one in given if isinstance(one, int)]
        made[name] = numbers[-1] if numbers else "; ".join(words) if words else value
    return made
