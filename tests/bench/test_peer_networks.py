"""Peers and floors as networks of ours, trained and scored on our windows."""

from pathlib import Path

import pytest
import torch

from tests.training.tiny import RECIPE
from tsattn.bench.grid.cells import read_cells
from tsattn.bench.grid.kept import write_weights
from tsattn.bench.opened import open_kept
from tsattn.bench.opened import test as score
from tsattn.bench.peer_networks import HuggingFacePatchTST, NeuralforecastPatchTST, TrainMean
from tsattn.bench.rows import Key
from tsattn.models import PatchTST
from tsattn.training.command import run
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder

SIZES = (3, 24, 6)
SMALL = {
    "patch_length": 8, "stride": 4, "num_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 16,
    "dropout": 0.1,
}  # fmt: skip


def test_train_mean_is_zero_on_the_standardised_scale() -> None:
    forecast = TrainMean(*SIZES)(torch.randn(2, 24, 3)).mean
    assert torch.equal(forecast, torch.zeros(2, 6, 3))


def test_train_mean_scores_the_variance_around_the_training_mean() -> None:
    given = ["test", "--config", str(RECIPE)]
    result = run([*given, "--model.network", "tsattn.bench.peer_networks.TrainMean"])
    assert result is not None
    windows = ForecastData("illness", context=36, horizon=12).prepared.test
    truth_WHC = windows[: len(windows)].future_BHC.double()
    assert result["test"]["mse"] == pytest.approx(truth_WHC.square().mean().item(), rel=1e-6)
    assert result["test"]["mae"] == pytest.approx(truth_WHC.abs().mean().item(), rel=1e-6)
    assert result["test"]["windows_dropped"] == 0


@pytest.mark.unchecked
def test_neuralforecast_has_as_many_parameters_as_ours_and_takes_its_seed_from_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("neuralforecast", reason="the extra neuralforecast is not installed")
    ours = PatchTST(*SIZES, **SMALL)
    draws = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        network = NeuralforecastPatchTST(*SIZES, **SMALL)
        draws.append(torch.cat([p.flatten() for p in network.parameters() if p.requires_grad]))
    assert len(draws[0]) == sum(p.numel() for p in ours.parameters())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("name", "package"),
    [("NeuralforecastPatchTST", "neuralforecast"), ("HuggingFacePatchTST", "transformers")],
)
def test_peer_is_trained_by_our_task_with_our_recipe(
    name: str, package: str, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    given = ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path / "run")]
    given += ["--model.network", f"tsattn.bench.peer_networks.{name}", "--trainer.max_epochs", "3"]
    result = run([*given, "--trainer.logger", "false"])
    assert result is not None
    arguments = result["network"]["arguments"]
    assert arguments["d_model"] == 8  # the recipe's, not the default
    assert result["seed"] == 7
    assert result["test"]["windows_scored"] == 182
    losses = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(losses) == 4
    assert result["test"]["mse"] < result["floors"]["window_mean"]["mse"]
    again = run(
        [
            *("test", "--config", str(RunFolder(tmp_path / "run").config)),
            *("--ckpt_path", "best", "--trainer.logger", "false"),
        ]
    )
    assert again is not None
    assert again["test"] == result["test"]
    weights = tmp_path / "kept.safetensors"
    write_weights(weights, RunFolder(tmp_path / "run"), Key("table2", name, "illness", "", 7, "0"))
    kept = score(open_kept(weights, "32-true"))
    assert kept["test"] == result["test"]


@pytest.mark.unchecked
def test_hugging_face_forecasts_the_shape_of_ours() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    forecast = HuggingFacePatchTST(*SIZES, **SMALL)(torch.randn(2, 24, 3)).mean
    assert forecast.shape == (2, 6, 3)


def test_grids_of_peers_and_of_candidate_b_have_their_cells() -> None:
    cells = read_cells(["configs/bench/peers.yaml"])
    count = {
        model: sum(c.key.model == model for c in cells) for model in {c.key.model for c in cells}
    }
    floors = dict.fromkeys(("last_value", "window_mean", "seasonal_naive", "train_mean"), 8)
    trained = ("dlinear", "neuralforecast_patchtst", "huggingface_patchtst")
    assert count == floors | dict.fromkeys(trained, 40)
    assert {cell.key.value_activation for cell in cells} == {""}
    b = read_cells(["configs/bench/table2_b.yaml"])
    assert {cell.key[:3] for cell in b} == {("table2_b", "transformer", "illness")}
    assert len(b) == 30
    assert {cell.max_epochs for cell in b} == {100}
