"""What the model card says of intervals is what the checkpoint can give."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import Finished
from tsattn.errors import CheckpointError, ConfigError
from tsattn.forecast import Forecaster
from tsattn.forecast.export import export
from tsattn.training.checkpoint import RECORD, read_checkpoint
from tsattn.training.conformal import RECORD_KEY


def recalibrated(illness: Finished, home: Path, change: Any) -> Path:
    """Copy the run on Illness, with another calibration."""
    run = home / "run"
    shutil.copytree(illness.folder.path, run)
    content = read_checkpoint(run / "checkpoints" / "best.ckpt")
    change(content[RECORD][RECORD_KEY])
    torch.save(content, run / "checkpoints" / "best.ckpt")
    return run


def card_of(run: Path, out: Path) -> str:
    export(run, out)
    return (out / "README.md").read_text(encoding="utf-8")


def few_windows(conformal: dict[str, Any]) -> None:
    """Leave levels up to 90 percent, and none at all of the first channel."""
    high = [place for place, level in enumerate(conformal["levels"]) if level > 90]
    conformal["scores"][:, high] = torch.inf
    conformal["scores"][..., 0] = torch.inf
    conformal["windows"] = [0] + [10] * (len(conformal["windows"]) - 1)


def test_card_claims_no_level_that_is_not_there(
    illness: Finished, illness_frame: Any, tmp_path: Path
) -> None:
    run = recalibrated(illness, tmp_path, few_windows)
    text = card_of(run, tmp_path / "out")
    assert "intervals of 5 to 90 percent come from the residuals of 10 validation windows" in text
    name = Forecaster.load(run).trained.names[0]
    assert f"and so without intervals: {name}." in text
    with pytest.raises(ConfigError, match=f"the 0 of {name!r}: they allow no interval"):
        Forecaster.load(tmp_path / "out").predict(illness_frame, [80])


def test_card_says_that_there_are_no_intervals(illness: Finished, tmp_path: Path) -> None:
    def none(conformal: dict[str, Any]) -> None:
        conformal["scores"].fill_(torch.inf)
        conformal["windows"] = [0] * len(conformal["windows"])

    text = card_of(recalibrated(illness, tmp_path, none), tmp_path / "out")
    assert "There were too few validation windows for intervals of any level" in text
    assert "Split-conformal" not in text


def test_damaged_calibration_is_not_exported(illness: Finished, tmp_path: Path) -> None:
    def damage(conformal: dict[str, Any]) -> None:
        conformal["levels"] = conformal["levels"][:-1]

    run = recalibrated(illness, tmp_path, damage)
    with pytest.raises(CheckpointError, match="its calibration is damaged"):
        export(run, tmp_path / "out")
