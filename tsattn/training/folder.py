"""The folder of one run: what lies where, and when it may be written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsattn.errors import ConfigError, ExistsError
from tsattn.files import is_unfinished


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files.

    ``config.yaml`` (the resolved recipe), ``metrics.csv`` (a row per epoch), ``routing.csv`` (of
    networks with mixtures of experts), ``checkpoints/best.ckpt`` and ``last.ckpt``,
    ``schedule.png``, ``forecast.png``, ``result.json``, ``tensorboard/``; ``routing.html`` where
    ``tsattn moe report`` has written it.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.path / "metrics.csv"

    @property
    def routing(self) -> Path:
        """What mixtures of experts did, epoch by epoch."""
        return self.path / "routing.csv"

    @property
    def routing_page(self) -> Path:
        """The page on what mixtures of experts did."""
        return self.path / "routing.html"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Checkpoint with the best validation loss."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last finished epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def result(self) -> Path:
        """Scores and everything that makes them trustworthy."""
        return self.path / "result.json"

    def read_result(self) -> dict[str, Any]:
        """Return what ``result.json`` says.

        Raises:
            ConfigError: it holds something else.
        """
        try:
            return dict(json.loads(self.result.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.result} is no result of a run ({error}); bring the one that it wrote, or "
                "remove it"
            ) from error

    @property
    def forecast_picture(self) -> Path:
        """Forecasts of one test window."""
        return self.path / "forecast.png"

    @property
    def schedule_picture(self) -> Path:
        """Learning rate and beta1 over the epochs."""
        return self.path / "schedule.png"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's events, where it is installed."""
        return self.path / "tensorboard"

    def owns(self, checkpoint: Path | None) -> bool:
        """Whether a checkpoint lies in this folder, so that a training may go on here."""
        return checkpoint is not None and checkpoint.resolve().parent == self.checkpoints.resolve()

    def require_unused(self, *, overwrite: bool) -> None:
        """Refuse a folder that holds something, unless it is a run that may be replaced.

        Raises:
            ExistsError: the folder holds a run and ``overwrite`` is off, or holds something else.
        """
        if not self.path.exists() or (self.path.is_dir() and self._holds_nothing()):
            return
        if not self.config.is_file():
            raise ExistsError(f"{self.path} exists and is no run folder; choose another --run_dir")
        if not overwrite:
            raise ExistsError(
                f"{self.path} holds a run already; choose another --run_dir, go on with it by "
                "--ckpt_path last, or replace it with --overwrite"
            )

    def _holds_nothing(self) -> bool:
        """Whether no run has got as far as to write something here."""
        return all(
            is_unfinished(path)
            or (path == self.checkpoints and path.is_dir() and not any(path.iterdir()))
            for path in self.path.iterdir()
        )

    def clear(self) -> None:
        """Delete the files of a run, and nothing else."""
        for file in (
            self.config,
            self.metrics,
            self.routing,
            self.routing_page,
            self.result,
            self.forecast_picture,
            self.schedule_picture,
        ):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)

    def create(self) -> None:
        """Make the folder and the checkpoints' folder."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
