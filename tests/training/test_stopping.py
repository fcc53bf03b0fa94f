"""When training stops by itself: no progress, a loss that is no number, a person, a full disk."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.tiny import STEPS, Finished, contents, epoch_table, fit, fit_words, python
from tsattn.cli import main
from tsattn.errors import NonFiniteLossError
from tsattn.training import load_network
from tsattn.training.folder import RunFolder
from tsattn.training.task import ForecastTask

EXPLODE = [
    *("--model.schedule", "EpochDecay", "--model.schedule.first_epoch_factor", "1e-33"),
    *("--model.learning_rate", "1e30"),
]


def test_early_stopping_stops(tmp_path: Path) -> None:
    stop = ["--early_stopping.patience", "2", "--early_stopping.min_delta", "10"]
    result = fit(tmp_path / "run", *stop, "--trainer.max_epochs", 30)
    assert result["epochs"] == len(epoch_table(RunFolder(tmp_path / "run"))) == 3


def test_exploding_loss_stops_with_its_place_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(NonFiniteLossError) as caught:
        fit(folder.path, *EXPLODE)
    message = str(caught.value)
    assert "epoch 2, batch 2" in message
    assert "% WEIGHTED ILI" in message
    assert "--model.learning_rate" in message
    assert epoch_table(folder)["epoch"].tolist() == ["1"]
    for checkpoint in (folder.best, folder.last):
        assert all(bool(value.isfinite().all()) for value in load_network(checkpoint).parameters())
    assert not folder.result.exists()


def test_loss_that_explodes_in_an_epochs_last_batch_is_met_in_validation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match=r"validation.*epoch 2.*batch 1"):
        fit(folder.path, *EXPLODE, "--data.batch_size", 600)
    for checkpoint in (folder.best, folder.last):
        assert all(bool(value.isfinite().all()) for value in load_network(checkpoint).parameters())
    assert epoch_table(folder)["epoch"].tolist() == ["1"]


def test_channel_that_overflows_is_the_one_that_is_named(
    tmp_path: Path, write_wide: Callable[..., Path]
) -> None:
    path = write_wide(tmp_path / "own.csv", rows=400, channels=3)
    frame = pd.read_csv(path)
    frame.loc[300, "c1"] = 1e60  # in the validation rows; float32 ends at 3e38
    frame.to_csv(path, index=False)
    with pytest.raises(NonFiniteLossError, match="channel c1"):
        fit(tmp_path / "run", "--data.dataset", path, "--trainer.max_epochs", 2)


def test_nan_of_a_network_names_epoch_batch_and_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ForecastTask.training_step

    def poisoned(self: ForecastTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == (1, 3):
            batch.future_BHC[2, 5, 6] = torch.nan
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ForecastTask, "training_step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 2, batch 4, channel OT"):
        fit(tmp_path / "run")


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    largest: list[float] = []

    def note(self: ForecastTask, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
        if gradients:
            norms.append(torch.cat(gradients).norm().item())
            largest.append(torch.cat(gradients).abs().max().item())

    # before a step's gradients are cleared, those of the step before are there, clipped
    monkeypatch.setattr(ForecastTask, "on_before_zero_grad", note)
    fit(
        tmp_path / "run",
        *("--trainer.gradient_clip_val", 0.01, "--trainer.gradient_clip_algorithm", algorithm),
        *("--trainer.max_epochs", 1),
    )
    seen = norms if algorithm == "norm" else largest
    assert len(seen) == STEPS - 1
    assert max(seen) <= 0.01 * (1 + 1e-4)
    assert max(seen) > 0.009


def test_bf16_training_is_recorded_and_keeps_the_loss_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[tuple[torch.dtype, ...]] = set()
    step = ForecastTask._step

    def noting(self: ForecastTask, batch: Any) -> Any:
        forecast, loss = step(self, batch)
        weights = {p.dtype for p in self.parameters()}
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        kinds.add((loss.dtype, product.dtype, *weights))
        return forecast, loss

    monkeypatch.setattr(ForecastTask, "_step", noting)
    exact = fit(tmp_path / "exact", "--trainer.max_epochs", 2)
    kinds.clear()
    mixed = fit(tmp_path / "mixed", "--trainer.max_epochs", 2, "--trainer.precision", "bf16-mixed")
    assert kinds == {(torch.float32, torch.bfloat16, torch.float32)}
    assert mixed["precision"] == "bf16-mixed"
    assert mixed["test"]["mse"] != exact["test"]["mse"]
    assert mixed["test"]["mse"] == pytest.approx(exact["test"]["mse"], rel=0.05)


def test_adamw_decays_the_weights_apart_from_the_gradient(tmp_path: Path) -> None:
    def norm(optimizer: str, decay: float) -> float:
        run_dir = tmp_path / f"{optimizer}{decay}"
        words = ["--model.optimizer", optimizer, "--model.weight_decay", str(decay)]
        fit(run_dir, *words, "--trainer.max_epochs", 1)
        network = load_network(RunFolder(run_dir).last)
        return float(np.sqrt(sum(p.square().sum().item() for p in network.parameters())))

    free = norm("adamw", 0.0)
    assert free == pytest.approx(norm("adam", 0.0), rel=1e-6)
    assert norm("adamw", 20.0) < 0.9 * free


def test_ctrl_c_keeps_the_run_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = ForecastTask.training_step

    def interrupted(self: ForecastTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ForecastTask, "training_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(fit_words(tmp_path / "run")) == 130
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning has switched it off
    assert "--ckpt_path last" in capsys.readouterr().err
    assert epoch_table(RunFolder(tmp_path / "run"))["epoch"].tolist() == ["1"]


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM])
def test_a_test_that_is_ended_says_so_and_is_no_success(
    finished: Finished,
    asking: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ForecastTask, "on_test_start", lambda _: signal.raise_signal(asking))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    words = ["test", "--config", str(finished.folder.config), "--ckpt_path", "best"]
    try:
        assert main([*words, "--data.eval_batch_size", "8"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning has switched it off
    assert capsys.readouterr().err.endswith("interrupted\n")


FULL_DISK = """
import resource, sys
from tsattn.cli import main
from tsattn.training.command import run  # imports what imports matplotlib

sys.modules["matplotlib.figure"] = None
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_full_disk_keeps_the_previous_checkpoint(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file size limits are a matter of POSIX")
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folder.path, folder.path)
    before = contents(folder.checkpoints)
    limit = min(len(content) for content in before.values()) // 2
    assert limit > folder.metrics.stat().st_size + 2000
    failed = python(
        FULL_DISK,
        limit,
        *("fit", "--config", folder.config, "--ckpt_path", "last"),
        *("--trainer.max_epochs", 9, "--trainer.logger", "false"),
        cwd=tmp_path,
    )
    assert failed.returncode == 1, failed.stderr
    assert "could not save" in failed.stderr
    assert "previous one is kept" in failed.stderr
    assert "--ckpt_path last" in failed.stderr
    assert contents(folder.checkpoints) == before
    assert load_network(folder.last).horizon == 12
