"""The data of a run: from a dataset's name or a file to batches of windows."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
from torch.utils.data import DataLoader

from tsattn.data import (
    HOURLY_FOUR,
    Panel,
    Prepared,
    Reading,
    WindowSampler,
    default_season,
    load_panel,
    loader,
    prepare,
    split_borders,
)
from tsattn.data.reading import Duplicates, Gaps, Layout, Missing, column_names
from tsattn.data.steps import encode_step
from tsattn.data.treatment import Treatment, describe_treatment
from tsattn.data.windows import WindowBatch, Windows
from tsattn.errors import ConfigError
from tsattn.training.unseen import Part, require_unseen

Size = int | Literal["auto"]

LONGEST_CONTEXT = 336
LONGEST_HORIZON = 96


class ForecastData(L.LightningDataModule):
    """Windows of one dataset for training, validation and test.

    The file is read when it is first needed. Training drops its last incomplete batch; validation
    and test always score every window.

    Args:
        dataset: a name of the catalog (``ETTh1``, ...) or the path of a CSV file, wide (a time
            column, then channels) or long (``unique_id, ds, y``).
        root: folder that is searched first for catalog files.
        context: steps T of a window that a network looks at; ``auto``: a quarter of the training
            rows, 336 at most.
        horizon: steps H to forecast; ``auto``: half of the validation or test rows, whichever are
            fewer, 96 at most.
        batch_size: windows of a training batch.
        eval_batch_size: windows of a validation or test batch; scores do not depend on it. ``None``
            means ``batch_size``.
        borders: three shares (.7 .1 .2) or three row ends of training, validation and test;
            ``None`` means the catalog's borders, or 70/10/20.
        calendar: names of the calendar features, see `tsattn.data.calendar`.
        time_column: name of the time column; ``None`` recognises it.
        layout: ``wide`` or ``long``; ``None`` recognises it.
        delimiter: what separates cells; ``None`` recognises it.
        decimal: decimal point or comma; ``None`` recognises it.
        day_first: whether 03/04/2020 is the third of April; ``None`` recognises it, or asks.
        targets: columns to forecast; what is neither target nor covariate is not read. ``None``
            means all columns that are no covariates.
        known_future: covariates that are known ahead, over the horizon too: columns, which are then
            not forecast, or calendar features by name.
        past: columns that are covariates known up to now, and not forecast.
        static: columns of the long layout that are constant within each series.
        missing: what to do with missing values of a file of your own: ``error`` names them;
            ``interpolate`` fills the gaps of every window from its own context; ``mask`` tells the
            network which steps were observed. Missing targets are never scored. See
            `tsattn.data.treatment.Treatment`.
        duplicates: rows with the same timestamp: ``error``, or keep the ``first``, the ``last`` or
            the ``mean``.
        gaps: rows that lack: ``error``, or ``regularise`` to insert them without values.
        time_zone: zone of local timestamps, such as ``Europe/Berlin``.

    Raises:
        ConfigError: a batch without windows.
        DataError: the data cannot be read or cut into windows.

    Attributes:
        whole: whether all rows are for training (`tsattn.training.refit`).
    """

    whole = False

    def __init__(
        self,
        dataset: str,
        *,
        root: Path | None = None,
        context: Size = "auto",
        horizon: Size = "auto",
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        borders: list[float] | None = None,
        calendar: list[str] = list(HOURLY_FOUR),  # noqa: B006 (shown as the default by --help)
        time_column: str | None = None,
        layout: Layout | None = None,
        delimiter: str | None = None,
        decimal: str | None = None,
        day_first: bool | None = None,
        targets: list[str] | None = None,
        known_future: list[str] | None = None,
        past: list[str] | None = None,
        static: list[str] | None = None,
        missing: Missing = "error",
        duplicates: Duplicates = "error",
        gaps: Gaps = "error",
        time_zone: str | None = None,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if size is not None and size < 1:
                raise ConfigError(f"{name} must be at least 1, got {size}")
        self.dataset = dataset
        self.root = root
        self.sizes = (context, horizon)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.borders = borders
        self.calendar = calendar
        self.covariates = (
            column_names(known_future, "known_future"),
            column_names(past, "past"),
            column_names(static, "static"),
        )
        self.reading = Reading(
            delimiter=delimiter,
            decimal=decimal,
            day_first=day_first,
            time_column=time_column,
            layout=layout,
            covariates=tuple(name for names in self.covariates for name in names),
            targets=column_names(targets, "targets"),
            missing=missing,
            duplicates=duplicates,
            gaps=gaps,
            time_zone=time_zone,
        )
        Treatment.of(self.reading)  # refuses what does not go together
        self._prepared: Prepared | None = None

    @property
    def prepared(self) -> Prepared:
        """The windows, the scaler and where they came from; reads the file at the first call."""
        if self._prepared is None:
            panel = load_panel(self.dataset, root=self.root, reading=self.reading)
            context, horizon = auto_sizes(panel, *self.sizes, borders=self.borders)
            known_future, past, static = self.covariates
            self._prepared = prepare(
                panel,
                context=context,
                horizon=horizon,
                borders=self.borders,
                calendar=self.calendar,
                known_future=known_future,
                past=past,
                static=static,
                whole=self.whole,
            )
        return self._prepared

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.prepared.panel.num_channels

    @property
    def context(self) -> int:
        """Steps of a window that a network looks at."""
        return self.prepared.context

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return self.prepared.horizon

    @property
    def calendar_features(self) -> int:
        """Number of calendar features of every step."""
        return len(self.calendar)

    @property
    def known_covariates(self) -> int:
        """Number of covariates that are known ahead."""
        return len(self.covariates[0])

    @property
    def past_covariates(self) -> int:
        """Number of covariates that are known up to now."""
        return len(self.covariates[1])

    @property
    def static_covariates(self) -> int:
        """Number of features that are constant within each series."""
        return len(self.covariates[2])

    @property
    def season(self) -> int:
        """Steps of a season, as the distance of two rows suggests; 1 for steps that are counted."""
        if self.prepared.panel.integers:
            return 1
        return default_season(self.prepared.panel.step_seconds)

    @property
    def published_test_windows(self) -> int:
        """Test windows that published code scores: those of full batches of the training size."""
        return len(self.prepared.test) // self.batch_size * self.batch_size

    def compare(self, trained: Mapping[str, Any], part: Part = "test") -> None:
        """Say so where a checkpoint was trained on other data than it is scored on.

        Args:
            trained: the description of that data; empty for a network without training.
            part: what is to be scored.

        Raises:
            ConfigError: the checkpoint was trained on all rows, so nothing is left to score it on,
                or it has seen rows of that part.
        """
        if trained.get("whole"):
            raise ConfigError(
                "this checkpoint was trained on all rows, those of validation and test included, "
                "so a score would say nothing; its result.json names the run that was validated"
            )
        require_unseen(trained, self.prepared, part, "a score would say nothing")
        now = self.prepared.panel
        if trained and trained["sha256"] != now.sha256:
            print(
                f"note: trained on {trained['name']} ({trained['sha256'][:8]}), scored on "
                f"{now.name} ({now.sha256[:8]}) with that data's own scaler"
            )
        elif trained and trained["channels"] != list(now.channels):
            print(
                f"note: trained on the channels {', '.join(trained['channels'])}, scored on "
                f"{', '.join(now.channels)}"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the data (Lightning calls this in every process)."""
        _ = self.prepared

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        """Shuffled batches, the last incomplete one dropped."""
        return self._loader(self.prepared.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[WindowBatch]:
        """All validation windows in time order."""
        return self._loader(self.prepared.val, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[WindowBatch]:
        """All test windows in time order."""
        return self._loader(self.prepared.test, self.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        """Return what a forecast on new data needs to know, in plain values and tensors."""
        prepared, panel = self.prepared, self.prepared.panel
        covariates = prepared.covariates.record() if prepared.covariates else {}
        chosen = self.reading.targets and panel.layout == "wide"
        return covariates | {
            "name": panel.name,
            "sha256": panel.sha256,
            "layout": panel.layout,
            "time_column": panel.time_column,
            "channels": list(panel.channels),
            "series": list(panel.ids),
            "step": encode_step(panel.step),
            "step_seconds": panel.step_seconds,
            "season": self.season,
            "context": self.context,
            "horizon": self.horizon,
            "calendar": list(prepared.calendar),
            "borders": [[list(part) for part in b.parts().values()] for b in prepared.borders],
            "scaler_mean": prepared.scaler.mean_SC,
            "scaler_scale": prepared.scaler.scale_SC,
            "batch_size": self.batch_size,
            "integers": panel.integers,
            "treatment": describe_treatment(panel.treatment, panel.treated),
            "notes": list(prepared.notes),
            **({"targets_chosen": True} if chosen else {}),
            **({"whole": True} if self.whole else {}),
            **({"clock": panel.clock} if panel.clock else {}),
            **({"by_utc": True} if panel.by_utc else {}),
        }

    def _loader(
        self, windows: Windows, batch_size: int, *, shuffle: bool = False
    ) -> DataLoader[WindowBatch]:
        sampler = WindowSampler(
            len(windows),
            batch_size,
            shuffle=shuffle,
            seed=run_seed() or 0,
            drop_last=shuffle,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        if shuffle and self.trainer:
            # a resumed run iterates before Lightning has told the sampler which epoch it is
            done = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(done.processed)  # pyright: ignore[reportAttributeAccessIssue]
        return loader(windows, sampler)


def auto_sizes(
    panel: Panel, context: Size, horizon: Size, *, borders: Sequence[float] | None = None
) -> tuple[int, int]:
    """Replace ``auto`` by sizes that leave enough windows in every part of the longest series.

    Raises:
        DataError: the borders do not fit its rows.
    """
    if context != "auto" and horizon != "auto":
        return context, horizon
    parts = split_borders(max(panel.lengths), 0, info=panel.info, borders=borders).parts()
    rows = {name: end - begin for name, (begin, end) in parts.items()}
    if context == "auto":
        context = max(1, min(LONGEST_CONTEXT, rows["train"] // 4))
    if horizon == "auto":
        most = min(rows["val"] // 2, rows["test"] // 2, rows["train"] - context)
        horizon = max(1, min(LONGEST_HORIZON, most))
    return context, horizon


def run_seed() -> int | None:
    """Return the seed that `lightning.seed_everything` set, or None where nobody set one."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)
