"""A finished run that was validated, as far as training again needs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsattn.errors import ConfigError
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.folder import RunFolder
from tsattn.training.reopened import settings_of

REFIT = "refit"
"""Where a record says of which run it is a refit."""

_NEEDED = ("test", "commit", "train_windows")


@dataclass(frozen=True, eq=False)
class Validated:
    """A finished run, as far as training again needs it.

    Attributes:
        folder: its run folder.
        epochs: the epoch with the lowest validation loss, counted from 1.
        record: of its best checkpoint.
        result: its ``result.json``.
    """

    folder: RunFolder
    epochs: int
    record: Mapping[str, Any]
    result: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> "Validated":
        """Open a run folder.

        Raises:
            ConfigError: no run folder, one that is not finished, or was refitted itself, or a
                result without what is needed of it.
            CheckpointError: its best checkpoint cannot be read.
        """
        folder = RunFolder(path)
        settings_of(folder)
        if not folder.result.is_file():
            raise ConfigError(
                f"{path} has no {folder.result.name}, so it is not finished; go on with it: tsattn "
                f"fit --config {folder.config} --ckpt_path last"
            )
        content = read_checkpoint(folder.best)
        record = content[RECORD]
        if record.get(REFIT):
            raise ConfigError(
                f"{path} was itself trained on all rows; refit {record[REFIT]['of']}, which was "
                "validated"
            )
        return cls(folder, content["epoch"] + 1, record, _result_of(folder))

    @property
    def data(self) -> dict[str, str]:
        """Name and sha256 of the data."""
        return {key: self.record["data"][key] for key in ("name", "sha256")}

    def stretched(self, steps: int, now: int, steps_of: Callable[[int], int]) -> int:
        """Return a number of steps such that it ends as many epochs as ``steps`` did there.

        Args:
            steps: ``max_steps`` of the recipe, -1 for no limit.
            now: training windows of the new run.
            steps_of: steps of an epoch of so many windows.
        """
        if steps < 0:
            return steps
        then = max(1, steps_of(self.result["train_windows"]))
        return -(-steps * max(1, steps_of(now)) // then)


def _result_of(folder: RunFolder) -> Mapping[str, Any]:
    """Return ``result.json``; what a refit takes from it is there."""
    result = folder.read_result()
    lacking = [key for key in _NEEDED if key not in result]
    if lacking:
        raise ConfigError(
            f"{folder.result} is no result of a run that was tested: it lacks "
            f"{', '.join(lacking)}; train it again with tsattn fit"
        )
    return result
