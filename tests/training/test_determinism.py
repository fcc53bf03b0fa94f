"""The same seed gives the same run, another seed another, and the windows' order is the seed's."""

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.training.tiny import Finished, epoch_table, fit, fit_words
from tsattn.training.command import TrainingCLI
from tsattn.training.folder import RunFolder
from tsattn.training.task import ForecastTask


def test_same_seed_gives_the_same_run_and_another_seed_another(
    finished: Finished, tmp_path: Path
) -> None:
    torch.rand(7)  # what was drawn before must not matter
    same = fit(tmp_path / "same")
    other = fit(tmp_path / "other", "--seed_everything", 8)
    pd.testing.assert_frame_equal(
        epoch_table(RunFolder(tmp_path / "same")), epoch_table(finished.folder)
    )
    assert same["test"] == finished.result["test"]
    assert other["seed"] == 8
    assert abs(other["test"]["mse"] - same["test"]["mse"]) > 1e-4


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """Note the windows of every training batch, one list per run."""
    seen: list[list[list[int]]] = []
    step = ForecastTask.training_step

    def noting(self: ForecastTask, batch: Any, batch_idx: int) -> torch.Tensor:
        seen[-1].append(batch.index_B.tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ForecastTask, "training_step", noting)
    return seen


def test_order_of_windows_depends_on_seed_and_epoch_alone(
    tmp_path: Path, orders: list[list[list[int]]]
) -> None:
    variants = (
        ["--seed_everything", "7"],
        ["--model.network.dropout", "0.0", "--model.network.num_layers", "2"],
        ["--model.network.value_activation", "relu"],
        ["--seed_everything", "8"],
    )
    for number, words in enumerate(variants):
        orders.append([])
        fit(tmp_path / str(number), "--trainer.max_epochs", 2, *words)
    first, without_dropout, other_activation, other_seed = orders
    assert first == without_dropout == other_activation
    assert first != other_seed
    epochs = first[: len(first) // 2], first[len(first) // 2 :]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        drawn = [window for batch in epoch for window in batch]
        assert len(set(drawn)) == len(drawn) == 9 * 64


def test_network_of_a_seed_starts_from_the_same_weights(tmp_path: Path) -> None:
    def initial(seed: int) -> dict[str, torch.Tensor]:
        words = [*fit_words(tmp_path / "none"), "--seed_everything", str(seed)]
        cli = TrainingCLI([*words, "--trainer.fast_dev_run", "true", "--model.learning_rate", "0"])
        return copy.deepcopy(cli.model.network.embed.state_dict())

    one, again, other = initial(3), initial(3), initial(4)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
