"""Training once more on all rows, for as many epochs as a validated run found best."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from tsattn.errors import ConfigError
from tsattn.files import write_atomically
from tsattn.training.callbacks import checkpoint_callbacks
from tsattn.training.checkpoint import RECORD, describe_network, read_checkpoint
from tsattn.training.command import TrainingCLI
from tsattn.training.conformal import RECORD_KEY, Calibration
from tsattn.training.datamodule import ForecastData, run_seed
from tsattn.training.recipes import recipes_of, with_recipes
from tsattn.training.result import as_json, environment
from tsattn.training.same_kind import notes_on_series, require_same_kind
from tsattn.training.saving import SafeCheckpointIO
from tsattn.training.validated import REFIT, Validated

_KEPT = ("test", "floors", "dataset", "limits", "best_epoch", "checkpoint_rule", "commit")
"""What a refit's result says of the validated run, which its scores are of."""


class WholeData(ForecastData):
    """Data whose rows all are for training, those of validation and test included."""

    whole = True


def refit(
    run: Path,
    *,
    data: Path | None = None,
    run_dir: Path | None = None,
    ckpt_path: str | None = None,
    overwrite: bool = False,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Train the network of a run anew, on its training, validation and test rows together.

    Recipe, seed and schedule stay; training ends after the epoch that was best in the validated run
    (the schedule is that of the whole plan, so each epoch has the rate it had there). The scaler is
    fitted on all rows. The residuals of the validated run are kept, in original units.

    Args:
        run: the validated run's folder.
        data: train on all rows of this file instead.
        run_dir: folder of the new run; by default that of the old one with ``-refit`` behind.
        ckpt_path: ``last`` to go on with an interrupted one.
        overwrite: replace an existing run in ``run_dir``.
        more: further words for ``tsattn fit``.

    Returns:
        The result, as in the new run's ``result.json``.

    Raises:
        TsattnError: the run cannot be refitted; nothing has been overwritten.
    """
    validated = Validated.of(run)
    target = run_dir or refit_folder(run)
    if target.resolve() == run.resolve():
        raise ConfigError(f"--run_dir {target} is the run itself; name another folder")
    words = ["fit", "--config", str(validated.folder.config), "--run_dir", str(target)]
    # no validation loss is there to wait for
    words += ["--early_stopping.strict", "false", "--calibrate", "false"]
    words += ["--trainer.max_time", "null"]  # the epochs are counted
    if data is not None:
        words += ["--data.dataset", str(data), "--data.borders", "[0.7,0.1,0.2]"]
    if ckpt_path is not None:
        words += ["--ckpt_path", ckpt_path]
    if overwrite:
        words.append("--overwrite")
    done = RefitCLI(with_recipes([*words, *more]), validated)
    assert done.result is not None
    return done.result


def refit_folder(run: Path) -> Path:
    """Return where a refit lies by default: beside the run, with ``-refit`` behind its name."""
    named = run if run.name else run.resolve()  # "." has no name
    return named.with_name(f"{run.resolve().name}-refit")


class RefitCLI(TrainingCLI):
    """Fits on all rows, without validation and test, and keeps what the validated run knew."""

    data_class = WholeData

    def __init__(self, arguments: list[str], validated: Validated) -> None:
        self.validated = validated
        super().__init__(arguments)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Leave out validation."""
        return super().instantiate_trainer(**kwargs, limit_val_batches=0)

    def before_fit(self) -> None:
        """Let steps that the recipe counts last as many epochs as they did of fewer rows."""
        now = self.datamodule.describe()
        require_same_kind(self.validated.record["data"], now)
        for note in notes_on_series(self.validated.record["data"], now):
            print(f"note: {note}")
        super().before_fit()
        loop, windows = self.trainer.fit_loop.epoch_loop, len(self.datamodule.prepared.train)
        loop.max_steps = self.validated.stretched(loop.max_steps, windows, self._steps_of)

    def _steps_of(self, windows: int) -> int:
        """Return the steps of an epoch of so many windows."""
        trainer, size = self.trainer, self.datamodule.batch_size
        batches, limit = windows // (size * trainer.world_size), trainer.limit_train_batches
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return -(-batches // trainer.accumulate_grad_batches)

    def savers(self) -> list[Callback]:
        """Keep the last epoch, and end with the validated run's best one."""
        last: list[ModelCheckpoint] = checkpoint_callbacks(self.folder)[1:]
        return [*last, StopAfter(self.validated.epochs)]

    def after_fit(self) -> None:
        """Write the checkpoint and the result of a training that came to its end."""
        if not self.trainer.is_global_zero:
            return
        epochs, wanted = self.trainer.current_epoch, self.validated.epochs
        if epochs < wanted:
            raise ConfigError(
                f"training ended after {epochs} of {wanted} epochs; go on with --ckpt_path last"
            )
        validated = self.validated.result
        refitted = {
            "of": str(self.validated.folder.path),
            "epochs": wanted,
            "validated_test": validated["test"],
            "validated_commit": validated["commit"],
            "validated_data": self.validated.data,
        }
        self._write_best(refitted)
        self.result = self._result(refitted)
        write_atomically(self.folder.result, as_json(self.result))

    def _write_best(self, refitted: Mapping[str, Any]) -> None:
        content = read_checkpoint(self.folder.last)
        record = content[RECORD]
        record[REFIT] = {name: value for name, value in refitted.items() if value is not None}
        found = self.validated.record.get(RECORD_KEY)
        if found is None:
            print(
                f"note: {self.validated.folder.path} is not calibrated, so there are no intervals; "
                "tsattn calibrate it, and refit again"
            )
        else:
            calibration = Calibration.of(found)
            record[RECORD_KEY] = carried(calibration, self.validated.record, record).record()
        SafeCheckpointIO().save_checkpoint(content, self.folder.best)

    def _result(self, refitted: Mapping[str, Any]) -> dict[str, Any]:
        data, panel = self.datamodule, self.datamodule.prepared.panel
        validated = {
            **self.validated.result,
            "best_epoch": refitted["epochs"],
            "dataset": refitted["validated_data"],
        }
        return {
            "refit_of": refitted["of"],
            "validated": {key: validated[key] for key in _KEPT if key in validated},
            "epochs": self.trainer.current_epoch,
            "recipes": recipes_of(self.arguments),
            "training": self.model.describe() | {"batch_size": data.batch_size},
            "network": describe_network(self.model.network),
            "dataset": {
                "name": panel.name,
                "sha256": panel.sha256,
                "rows": panel.num_rows,
                "channels": panel.num_channels,
                "series": panel.num_series,
                "trained_rows": sum(end for b in data.prepared.borders for _, end in [b.train]),
                "scaler": "mean and deviation (ddof 0) of all rows, per series and channel",
                "notes": list(data.prepared.notes),
            },
            "context": data.context,
            "horizon": data.horizon,
            "train_windows": len(data.prepared.train),
            "val_windows": 0,
            "seed": run_seed(),
            "wall_seconds": round(self.table.seconds if self.table else 0.0, 1),
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            **environment(self.trainer),
        }


class StopAfter(Callback):
    """Ends a training after an epoch, while its schedule is that of a longer one."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave a resumed training as it is where it had come to its end."""
        if trainer.current_epoch >= self.epochs:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after the last epoch."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


def carried(
    calibration: Calibration, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Calibration:
    """Return scores in the unit of another scaler, name by name; a new series has none.

    Args:
        calibration: of the validated run.
        then: record of its checkpoint.
        now: record of the new one.
    """
    names, scales = _scales(then["data"])
    new_names, new_scales = _scales(now["data"])
    places = {name: place for place, name in enumerate(names)}
    in_old_units = calibration.rescaled(scales)
    shape = (*calibration.scores_PLHK.shape[:3], len(new_names))
    scores = torch.full(shape, torch.inf)
    windows = [0] * len(new_names)
    for place, name in enumerate(new_names):
        if name in places:
            was = places[name]
            scores[..., place] = in_old_units.scores_PLHK[..., was] / new_scales[place]
            windows[place] = calibration.windows[was]
    return Calibration(calibration.levels, calibration.pairs, scores.float(), tuple(windows))


def _scales(data: Mapping[str, Any]) -> tuple[list[str], torch.Tensor]:
    names = data["channels" if data["layout"] == "wide" else "series"]
    return list(names), data["scaler_scale"].double().reshape(-1)


@contextmanager
def undisturbed_process() -> Iterator[None]:
    """Train in between: random streams and the environment are afterwards as they were."""
    environ, own, numpys = dict(os.environ), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environ)
        random.setstate(own)
        np.random.set_state(numpys)
