"""From a recipe and overrides to a finished run: the one function behind fit, validate and test.

`run` takes what a person types after ``tsattn`` and returns the result. The command, the benchmark
and the tuner all go through it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tsattn.data.amounts import counted
from tsattn.errors import ConfigError
from tsattn.files import write_atomically
from tsattn.training import report
from tsattn.training.calibrating import calibrate_best
from tsattn.training.callbacks import (
    EpochTable,
    Predictions,
    StayStopped,
    checkpoint_callbacks,
)
from tsattn.training.checkpoint import (
    load_weights,
    read_checkpoint,
    require_same_network,
    require_same_run,
)
from tsattn.training.datamodule import ForecastData
from tsattn.training.estimate import EnoughMeasuredError, FirstSteps
from tsattn.training.folder import RunFolder
from tsattn.training.limits import limits_of, refuse_settings
from tsattn.training.options import add_options, as_recipe
from tsattn.training.parser import RecipeParser
from tsattn.training.recipes import recipes_of, with_recipes
from tsattn.training.result import as_json, refuse_existing, result_of, save_predictions
from tsattn.training.routing import RoutingOfTest
from tsattn.training.routing_epochs import RoutingOfEpochs
from tsattn.training.saving import SafeCheckpointIO
from tsattn.training.task import ForecastTask
from tsattn.training.unseen import require_unseen
from tsattn.training.upcycling import upcycle_checkpoint


def run(
    arguments: Sequence[str], *, callbacks: Sequence[Callback] = (), score_test: bool = True
) -> dict[str, Any] | None:
    """Run ``fit``, ``validate`` or ``test`` as typed after ``tsattn``.

    Args:
        arguments: for example ``["fit", "--config", "configs/patchtst/etth1.yaml"]``; see
            `tsattn.training.recipes.with_recipes` for where recipes are found.
        callbacks: of the caller, called after those of the recipe and of the run folder.
        score_test: whether a fit ends with the test; without it no test window is scored, and
            there is no result.

    Returns:
        The result (as in ``result.json``) where a test was run, else None.

    Raises:
        TsattnError: what was asked for cannot be done; nothing has been overwritten.
        SystemExit: an argument that does not parse; the message has been printed.
    """
    words = with_recipes(arguments)
    return TrainingCLI(words, callbacks=callbacks, score_test=score_test).result


class TrainingCLI(LightningCLI):
    """LightningCLI with a run folder, a test after every fit, and a result.

    Attributes:
        data_class: the data module that is built from the settings.
    """

    data_class: type[ForecastData] = ForecastData

    def __init__(
        self,
        arguments: list[str],
        *,
        callbacks: Sequence[Callback] = (),
        score_test: bool = True,
    ) -> None:
        self.arguments = arguments
        self.callers_callbacks = callbacks
        self.score_test = score_test
        self.result: dict[str, Any] | None = None
        self.table: EpochTable | None = None
        super().__init__(
            ForecastTask,
            self.data_class,
            save_config_callback=None,
            parser_class=RecipeParser,
            trainer_defaults={"num_sanity_val_steps": 0, "use_distributed_sampler": False},
            seed_everything_default=2021,
            args=arguments,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The three commands, and the arguments that are not typed."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
            "test": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, early stopping, and the sizes that flow from data to network."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what was given, whatever ``sys.argv`` holds."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: the recipe is the only source."""

    @property
    def _given(self) -> Namespace:
        return self.config[str(self.subcommand)]

    def before_instantiate_classes(self) -> None:
        """Find the run folder and the checkpoint, and refuse what would overwrite something."""
        given = self._given
        self.fitting = self.subcommand == "fit"
        self.folder = RunFolder(self._run_dir())
        refuse_settings(given.trainer.as_dict())
        given.ckpt_path = self._checkpoint(given.get("ckpt_path"))
        self.resuming = self.fitting and self.folder.owns(given.ckpt_path)
        if given.save_predictions:
            refuse_existing(given.save_predictions, overwrite=given.overwrite)
        self.estimating = bool(given.estimate)
        if self.estimating and not self.fitting:
            raise ConfigError(f"--estimate belongs to fit, not to {self.subcommand}; leave it out")
        self.keeps_files = self.fitting and not given.trainer.fast_dev_run and not self.estimating
        if self.keeps_files and not self.resuming and not _is_child():
            self.folder.require_unused(overwrite=given.overwrite)
        if self.fitting and given.ckpt_path and not self.resuming:
            raise ConfigError(_of_another_run(given.ckpt_path, self.folder))

    def _run_dir(self) -> Path:
        if self._given.run_dir:
            return Path(self._given.run_dir).expanduser()
        if _is_child() and "TSATTN_RUN_DIR" in os.environ:
            return Path(os.environ["TSATTN_RUN_DIR"])
        for flag, value in zip(self.arguments, self.arguments[1:], strict=False):
            home = RunFolder(Path(value).parent)
            is_run = Path(value) == home.config and home.checkpoints.is_dir()
            if flag == "--config" and is_run:
                return home.path
        network = self._given.model.network.class_path.rsplit(".", 1)[-1].lower()
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        return Path("runs") / f"{network}-{Path(self._given.data.dataset).stem}-{stamp}"

    def _checkpoint(self, given: str | Path | None) -> Path | None:
        """Turn ``last`` and ``best`` into files of the run folder, and open any file once."""
        if given is None:
            return None
        named = {"last": self.folder.last, "best": self.folder.best}
        path = named.get(str(given), Path(given))
        read_checkpoint(path)
        return path

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks that write the run folder."""
        self.predictions = Predictions(everything=self._given.save_predictions is not None)
        self.routing = RoutingOfTest()
        self.routing_epochs = RoutingOfEpochs(self.folder.routing if self.keeps_files else None)
        callbacks: list[Callback] = [self.predictions, self.routing]
        if self.keeps_files:
            self.table = EpochTable(self.folder.metrics)
            callbacks += [StayStopped(), self.table, self.routing_epochs]
            callbacks += self.savers()
            callbacks += [report.SchedulePicture(self.folder), FirstSteps()]
        if self.estimating:
            callbacks.append(FirstSteps(stop=True, least_steps=5, least_seconds=5.0))
            kwargs.setdefault("enable_checkpointing", False)
        callbacks += self.callers_callbacks
        given = self._get(self.config_init, "trainer")
        given["callbacks"] = [*(given.get("callbacks") or []), *report.progress(), *callbacks]
        given["plugins"] = [*_as_list(given.get("plugins")), SafeCheckpointIO()]
        if given.get("logger") in (None, True):
            given["logger"] = report.tensorboard(self.folder) if self.keeps_files else False
        kwargs.setdefault("enable_model_summary", False)
        kwargs.setdefault("enable_progress_bar", report.has_terminal())
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise ConfigError(
                f"these trainer settings cannot work here: {error}; see tsattn doctor"
            ) from error

    def savers(self) -> list[Callback]:
        """Return the callbacks that keep checkpoints."""
        return [*checkpoint_callbacks(self.folder)]

    def before_fit(self) -> None:
        """Create the run folder; from here on files are written."""
        self.model.trainable()
        self.model.require_covariates(self.datamodule)
        if checkpoint := self._given.ckpt_path:
            content = read_checkpoint(checkpoint)
            require_same_network(content, self.model.network, checkpoint)
            data, training = self.datamodule.describe(), self.model.describe()
            require_same_run(content, data, training, checkpoint)
        elif self._given.upcycle:
            trained = upcycle_checkpoint(self.model.network, self._given.upcycle)
            for part in ("val", "test"):
                require_unseen(trained, self.datamodule.prepared, part, "no score would be fair")
        os.environ["TSATTN_RUN_DIR"] = str(self.folder.path.resolve())
        report.announce(self.model, self.datamodule, self.folder if self.keeps_files else None)
        if self.keeps_files and self.trainer.is_global_zero:
            if not self.resuming:
                self.folder.clear()
            self.folder.create()
            write_atomically(self.folder.config, self._resolved_config())

    def fit(self, **arguments: Any) -> None:
        """Train, or measure."""
        with suppress(EnoughMeasuredError), self._interruptions():
            self.trainer.fit(**arguments)

    @contextmanager
    def _interruptions(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM come out as such, where Lightning exits."""
        try:
            yield
        except SystemExit:
            if self.trainer.interrupted:
                raise KeyboardInterrupt from None
            raise

    def after_fit(self) -> None:
        """Test the best checkpoint and write the result, unless that was not asked for."""
        if self.estimating or not self.score_test:
            return
        self._test(self.folder.best if self.keeps_files else None)

    def before_validate(self) -> None:
        """Refuse to score weights that nobody trained."""
        self.before_test()

    def before_test(self) -> None:
        """Refuse to score weights that nobody trained."""
        untrained = self._given.ckpt_path is None and any(True for _ in self.model.parameters())
        if untrained and not self._given.trainer.fast_dev_run:
            raise ConfigError(
                f"{self.subcommand} needs trained weights: give --ckpt_path "
                "RUN/checkpoints/best.ckpt, or best with --config RUN/config.yaml"
            )

    def test(self, **_: Any) -> None:
        """Run the test of the checkpoint that was named."""
        self._test(self._given.ckpt_path)

    def validate(self, **_: Any) -> None:
        """Score the checkpoint that was named on the validation windows."""
        self.datamodule.compare(load_weights(self.model.network, self._given.ckpt_path), "val")
        with self._interruptions():
            self.trainer.validate(self.model, self.datamodule, verbose=False)
        if self.trainer.is_global_zero and not self._given.trainer.fast_dev_run:
            report.show_validation(self.trainer, self.model, self.datamodule)

    def _test(self, checkpoint: Path | None) -> None:
        epochs = self.trainer.current_epoch
        if self.resuming and self.table and not self.table.started:
            print(f"nothing was left to train: {counted(epochs, 'epoch')} are done")
        trained = load_weights(self.model.network, checkpoint)
        self.datamodule.compare(trained)
        with self._interruptions():
            self.trainer.test(self.model, self.datamodule, verbose=False)
        if not self.trainer.is_global_zero or self._given.trainer.fast_dev_run:
            return
        self.result = result_of(
            self.trainer,
            self.model,
            self.datamodule,
            checkpoint=checkpoint,
            moe=self.routing.summary(self.routing_epochs.final()),
            recipes=recipes_of(self.arguments),
            limits=limits_of(self._given.trainer.as_dict()),
            epochs=epochs,
            seconds=self.table.seconds if self.table else 0.0,
        )
        if self.keeps_files and self._given.calibrate:
            self.result["conformal"] = calibrate_best(
                self.model,
                self.datamodule,
                self.folder.best,
                limit=self._given.trainer.limit_val_batches,
                device=self.trainer.strategy.root_device,
            )
        report.show_result(self.result)
        if self.keeps_files:
            write_atomically(self.folder.result, as_json(self.result))
            report.draw_forecast_of(self.predictions, self.datamodule, self.result, self.folder)
        if self._given.save_predictions:
            save_predictions(
                self._given.save_predictions,
                *self.predictions.in_order(),
                self.datamodule,
                overwrite=self._given.overwrite,
            )
            print(f"forecasts of the test windows: {self._given.save_predictions}")

    def _resolved_config(self) -> str:
        given = self._given.clone()
        given.data.context, given.data.horizon = self.datamodule.context, self.datamodule.horizon
        return as_recipe(given, self._parser(self.subcommand), recipes_of(self.arguments))


def _of_another_run(checkpoint: Path, folder: RunFolder) -> str:
    """Say why a training does not begin from a checkpoint, and what does."""
    config = RunFolder(checkpoint.parent.parent).config
    recipe = config if config.is_file() else "RUN/config.yaml"
    return (
        f"--ckpt_path {checkpoint} does not lie in {folder.checkpoints}: fit goes on with a run in "
        "its own folder alone, where its epochs and its best checkpoint are; give --config "
        f"{recipe} --ckpt_path {checkpoint.stem} (of a copy of the folder, to keep both)"
    )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _is_child() -> bool:
    """Whether this process was started by another process of the same run."""
    return os.environ.get("LOCAL_RANK", "0") != "0"
