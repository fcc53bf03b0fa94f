"""Two processes on one machine: every window counts once, and the score is that of one process."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPE, TEST_WINDOWS, Finished, contents, epoch_table, python
from tsattn.resources import configs_dir
from tsattn.training.command import run
from tsattn.training.folder import RunFolder

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this build of torch has no gloo",
)

SCRIPT = """
import json, sys
import torch
from tsattn.training.command import run

torch.set_num_threads(1)
sys.modules["matplotlib.figure"] = None
result = run(sys.argv[1:])
print("RESULT" + json.dumps(result))
"""
DDP = ["--config", str(configs_dir() / "trainer" / "ddp.yaml")]
ALONE = ["--trainer.strategy", "auto", "--trainer.devices", "1"]


def test_fit_and_test_in_two_processes_score_as_one_process_does(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    stored = tmp_path / "two.npz"
    two = python(
        SCRIPT,
        *("fit", "--config", RECIPE, *DDP, "--run_dir", folder.path),
        *("--trainer.max_epochs", 2, "--save_predictions", stored, "--data.eval_batch_size", 50),
        cwd=tmp_path,
    )
    assert two.returncode == 0, two.stderr
    results = [line[6:] for line in two.stdout.splitlines() if line.startswith("RESULT")]
    (fitted,) = [json.loads(result) for result in results if result != "null"]
    assert fitted["devices"] == 2
    assert epoch_table(folder)["epoch"].tolist() == ["1", "2"]
    assert epoch_table(folder)["step"].tolist() == ["4", "8"]
    losses = epoch_table(folder)["val/loss"].astype(float).tolist()
    assert losses[1] < 0.9 * losses[0], "it does not learn"
    assert fitted["test"]["mse"] < fitted["floors"]["window_mean"]["mse"]

    before = contents(folder.path)
    one = run(
        [
            *("test", "--config", str(folder.config), *ALONE, "--ckpt_path", str(folder.best)),
            *("--save_predictions", str(tmp_path / "one.npz")),
        ]
    )
    assert one is not None
    assert contents(folder.path) == before
    for part in ("test", "as_published"):
        assert fitted[part]["windows_scored"] == one[part]["windows_scored"]
        assert fitted[part]["mse"] == pytest.approx(one[part]["mse"], rel=1e-6)
        assert fitted[part]["mae"] == pytest.approx(one[part]["mae"], rel=1e-6)
    assert fitted["test"]["windows_scored"] == TEST_WINDOWS
    assert fitted["floors"] == one["floors"]
    with np.load(stored) as both, np.load(tmp_path / "one.npz") as alone:
        assert both["prediction"].shape == alone["prediction"].shape
        np.testing.assert_allclose(both["prediction"], alone["prediction"], rtol=1e-4, atol=1e-5)
        assert np.array_equal(both["target"], alone["target"])


def test_checkpoint_of_one_process_has_its_score_in_two(finished: Finished, tmp_path: Path) -> None:
    words = ("test", "--config", finished.folder.config, *DDP, "--ckpt_path", finished.folder.best)
    two = python(SCRIPT, *words, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    results = [line[6:] for line in two.stdout.splitlines() if line.startswith("RESULT")]
    (tested,) = [json.loads(result) for result in results if result != "null"]
    assert tested["devices"] == 2
    for part in ("test", "as_published"):
        one = finished.result[part]
        assert tested[part]["windows_scored"] == one["windows_scored"]
        assert tested[part]["mse"] == pytest.approx(one["mse"], rel=1e-6)
        assert tested[part]["mae"] == pytest.approx(one["mae"], rel=1e-6)
    assert tested["test"]["windows_scored"] == TEST_WINDOWS
    assert tested["test"]["windows_dropped"] == 0
