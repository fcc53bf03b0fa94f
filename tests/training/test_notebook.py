"""Training without the command: Lightning's own Trainer, as in a notebook."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from tests.training.tiny import BATCH, CONTEXT, HORIZON, TEST_WINDOWS
from tsattn.errors import CheckpointError, ConfigError
from tsattn.models import LastValue, PatchTST
from tsattn.ops import ValueActivation
from tsattn.training import ForecastData, ForecastTask, load_network


def small(value_activation: ValueActivation = "tanh") -> PatchTST:
    return PatchTST(
        7,
        CONTEXT,
        HORIZON,
        patch_length=12,
        num_layers=1,
        d_model=8,
        num_heads=2,
        d_ff=16,
        value_activation=value_activation,
    )


def notebook_trainer(folder: Path, max_epochs: int = 1) -> L.Trainer:
    return L.Trainer(
        max_epochs=max_epochs,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def illness() -> ForecastData:
    return ForecastData("illness", context=CONTEXT, horizon=HORIZON, batch_size=BATCH)


def checkpoint_of(trainer: L.Trainer) -> str:
    callback = trainer.checkpoint_callback
    assert isinstance(callback, ModelCheckpoint)
    return callback.best_model_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[L.Trainer, ForecastTask]:
    L.seed_everything(3, verbose=False)
    task = ForecastTask(small(), learning_rate=0.01)
    trainer = notebook_trainer(tmp_path_factory.mktemp("notebook"), max_epochs=2)
    trainer.fit(task, illness())
    return trainer, task


def test_fit_and_test_work_without_the_command(trained: tuple[L.Trainer, ForecastTask]) -> None:
    trainer, task = trained
    (scores,) = trainer.test(task, illness(), verbose=False)
    assert scores["test/mse"] == pytest.approx(task.test_errors.compute()["mse"].item(), rel=1e-6)
    assert int(task.test_errors.compute()["windows"]) == TEST_WINDOWS
    assert trainer.callback_metrics["test/mae"] > 0


def test_checkpoint_brings_back_the_same_forecasts(
    trained: tuple[L.Trainer, ForecastTask],
) -> None:
    trainer, task = trained
    x_BTC = torch.randn(5, CONTEXT, 7)
    task.eval()
    with torch.inference_mode():
        expected = task.network(x_BTC).mean
        for again in (
            ForecastTask.load_from_checkpoint(checkpoint_of(trainer)).network,
            load_network(checkpoint_of(trainer)),
            load_network(checkpoint_of(trainer), small()),
        ):
            assert not again.training
            assert torch.equal(again(x_BTC).mean, expected)


def test_lightnings_own_test_of_a_checkpoint_works(
    trained: tuple[L.Trainer, ForecastTask], tmp_path: Path
) -> None:
    trainer, task = trained
    (before,) = trainer.test(task, illness(), verbose=False)
    fresh = ForecastTask(small())
    other = notebook_trainer(tmp_path)
    (after,) = other.test(fresh, illness(), ckpt_path=checkpoint_of(trainer), verbose=False)
    assert after == before


def test_lightning_refuses_the_checkpoint_of_another_network_with_our_words(
    trained: tuple[L.Trainer, ForecastTask], tmp_path: Path
) -> None:
    other = ForecastTask(PatchTST(7, CONTEXT, HORIZON, d_model=16, num_heads=2))
    with pytest.raises(CheckpointError, match="d_model 8 instead of 16"):
        notebook_trainer(tmp_path).test(other, illness(), ckpt_path=checkpoint_of(trained[0]))


class Softsign(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1 + x.abs())


@pytest.mark.parametrize("activation", [torch.sin, Softsign()], ids=["function", "module"])
def test_own_activation_trains_and_its_checkpoint_says_what_it_needs(
    tmp_path: Path, activation: Any
) -> None:
    task = ForecastTask(small(activation), learning_rate=0.01)
    before = [p.detach().clone() for p in task.parameters()]
    trainer = notebook_trainer(tmp_path)
    trainer.fit(task, illness())
    assert not all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))
    path = checkpoint_of(trainer)
    with pytest.raises(CheckpointError, match=r"PatchTST.*value_activation.*cannot be stored"):
        load_network(path)
    x_BTC = torch.randn(2, CONTEXT, 7)
    with torch.inference_mode():
        again = load_network(path, small(activation))
        assert torch.equal(again(x_BTC).mean, task.eval().network(x_BTC).mean)


def test_own_activation_with_weights_of_its_own_learns_them(tmp_path: Path) -> None:
    task = ForecastTask(small(nn.PReLU(init=0.25)), learning_rate=0.01)
    notebook_trainer(tmp_path).fit(task, illness())
    learned = [m.weight.item() for m in task.modules() if isinstance(m, nn.PReLU)]
    assert learned
    assert 0.25 not in learned


def test_network_without_parameters_is_not_fitted(tmp_path: Path) -> None:
    task = ForecastTask(LastValue(7, CONTEXT, HORIZON))
    with pytest.raises(ConfigError, match=r"LastValue has no parameters.*tsattn test"):
        notebook_trainer(tmp_path).fit(task, illness())


@pytest.mark.parametrize("size", [0, -3])
def test_batch_without_windows_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"^batch_size must be at least 1, got {size}"):
        ForecastData("illness", batch_size=size)
    with pytest.raises(ConfigError, match=f"^eval_batch_size must be at least 1, got {size}"):
        ForecastData("illness", eval_batch_size=size)


def test_auto_sizes_leave_windows_in_every_part() -> None:
    data = ForecastData("illness")
    assert data.context == 676 // 4
    assert data.horizon == 96 // 2
    for part in (data.prepared.train, data.prepared.val, data.prepared.test):
        assert len(part) > 0


@pytest.mark.parametrize(
    ("borders", "context", "horizon"),
    [
        ([0.9, 0.05, 0.05], 869 // 4, 48 // 2),
        ([400, 900, 940], 100, 40 // 2),  # the test part is the shorter one
        ([20, 26, 966], 5, 3),
    ],
)
def test_auto_sizes_follow_the_borders(borders: list[float], context: int, horizon: int) -> None:
    data = ForecastData("illness", borders=borders)
    assert (data.context, data.horizon) == (context, horizon)
    assert min(len(data.prepared.train), len(data.prepared.val), len(data.prepared.test)) > 1
