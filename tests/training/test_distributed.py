"""Two processes on one machine: every window counts once, and the score is that of one process."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPE, TEST_WINDOWS, contents, epoch_table, python
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
