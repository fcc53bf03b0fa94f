"""What a person sees of a run: the announcement, the progress, the scores, the pictures."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.table import Table

from tsattn.console import open_console
from tsattn.data.amounts import counted
from tsattn.data.catalog import find_by_sha256
from tsattn.errors import MissingExtraError
from tsattn.training.callbacks import Predictions
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder
from tsattn.training.result import floors
from tsattn.training.routing import describe_mixtures
from tsattn.training.task import ForecastTask, total_steps


class EpochLines(Callback):
    """One line per epoch, where there is no terminal to draw a progress bar on."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's losses."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        shown = [f"{n} {metrics[n].item():.4f}" for n in ("train/loss", "val/loss") if n in metrics]
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *shown, flush=True)


def has_terminal() -> bool:
    """Whether there is a terminal to draw on."""
    return sys.stdout.isatty()


def progress() -> list[Callback]:
    """Return a progress bar on a terminal, a line per epoch elsewhere."""
    return [RichProgressBar(leave=False)] if has_terminal() else [EpochLines()]


def tensorboard(folder: RunFolder) -> TensorBoardLogger | bool:
    """Return a logger below the run folder where TensorBoard is installed, else False."""
    if find_spec("tensorboard") is None:
        return False
    return TensorBoardLogger(folder.path, name="", version=folder.tensorboard.name)


def announce(task: ForecastTask, data: ForecastData, folder: RunFolder | None) -> None:
    """Say what will be trained on what, and where it will lie."""
    console, prepared, panel = open_console(), data.prepared, data.prepared.panel
    console.print(
        f"{panel.name}: {panel.num_rows:,} rows x {counted(panel.num_channels, 'channel')}"
        + (f", {panel.num_series} series" if panel.num_series > 1 else "")
        + f", {panel.span}; context {data.context}, horizon {data.horizon}; "
        f"windows {len(prepared.train):,} train, {len(prepared.val):,} validation, "
        f"{len(prepared.test):,} test"
    )
    for note in prepared.notes:
        console.print(f"  note: {note}")
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    console.print(f"{type(task.network).__name__}: {parameters:,} parameters")
    if line := describe_mixtures(task.network):
        console.print(f"  {line}")
    if folder:
        console.print(f"run folder: {folder.path}", soft_wrap=True)


def show_result(result: Mapping[str, Any]) -> None:
    """Print the test scores beside the floors."""
    test, published = result["test"], result["as_published"]
    title = f"{result['dataset']['name']}: {test['windows_scored']:,} test windows"
    if test["windows_dropped"]:
        title += f", {test['windows_dropped']:,} left out by limits: no test score"
    table = _scores(title, result["network"]["class"], test)
    partial = published["windows_scored"] not in (0, test["windows_scored"])
    if partial and find_by_sha256(result["dataset"]["sha256"]):
        label = f"  as published ({published['windows_scored']:,} windows)"
        table.add_row(label, f"{published['mse']:.4f}", f"{published['mae']:.4f}")
    _add_floors(table, result["floors"])
    open_console().print(table)
    if line := beaten_by(result):
        open_console().print(line, style="yellow")


def show_validation(trainer: L.Trainer, task: ForecastTask, data: ForecastData) -> None:
    """Print the validation scores beside the floors, and the loss that chooses checkpoints."""
    windows, scores = data.prepared.val, task.val_errors.compute()
    scored = int(scores["windows"])
    title = f"{data.prepared.panel.name}: {scored:,} validation windows"
    if scored < len(windows):
        title += f", {len(windows) - scored:,} left out by limits"
    table = _scores(title, type(task.network).__name__, scores)
    _add_floors(table, floors(data, windows, scored))
    open_console().print(table)
    open_console().print(f"val/loss {trainer.callback_metrics['val/loss'].item():.7g}")


def _scores(title: str, network: str, scores: Mapping[str, Any]) -> Table:
    table = Table(title=title)
    for column in ("", "MSE", "MAE"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(network, f"{scores['mse']:.4f}", f"{scores['mae']:.4f}", style="bold")
    return table


def _add_floors(table: Table, floors: Mapping[str, Mapping[str, float] | None]) -> None:
    for name, scores in floors.items():
        cells = (f"{scores['mse']:.4f}", f"{scores['mae']:.4f}") if scores else ("-", "-")
        label = name.replace("_", " ") + ("" if scores else " (season exceeds the context)")
        table.add_row(label, *cells, style="dim")


def beaten_by(result: Mapping[str, Any]) -> str:
    """Say which forecast without training is better than the network, or nothing."""
    floors = {name: scores["mse"] for name, scores in result["floors"].items() if scores}
    best = min(floors, key=floors.__getitem__, default=None)
    if best is None or not result["parameters"] or floors[best] > result["test"]["mse"]:
        return ""
    name = best.replace("_", " ")
    return f"no better than the {name}, which needs no training (MSE {floors[best]:.4f})"


def draw_forecast_of(
    predictions: Predictions, data: ForecastData, result: Mapping[str, Any], folder: RunFolder
) -> None:
    """Write the forecast picture, or say what is missing for it."""
    title = (
        f"{result['network']['class']} on {result['dataset']['name']}, last window scored "
        f"(test MSE {result['test']['mse']:.3f})"
    )
    try:
        from tsattn.training.pictures import draw_forecast

        index_W, forecasts_WHC = predictions.in_order()
        draw_forecast(folder.forecast_picture, int(index_W[-1]), forecasts_WHC[-1], data, title)
    except MissingExtraError as error:
        open_console().print(f"no forecast picture: {error}")
        return
    open_console().print(f"forecast picture: {folder.forecast_picture}", soft_wrap=True)


class SchedulePicture(Callback):
    """Draws learning rate and beta1 when training starts, where pictures can be made."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the steps that this training will really take."""
        if not trainer.is_global_zero or not isinstance(pl_module, ForecastTask):
            return
        total = total_steps(trainer)
        if total is None:
            return
        per_epoch = max(1, int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        rate = pl_module.learning_rate
        try:
            from tsattn.training.pictures import draw_schedule

            draw_schedule(self.folder.schedule_picture, pl_module.schedule, rate, total, per_epoch)
        except MissingExtraError:
            return  # said once, at the forecast picture
