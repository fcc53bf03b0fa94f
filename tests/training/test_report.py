"""What is printed at the end of a run."""

from typing import Any

import pytest

from tsattn.data import CATALOG
from tsattn.training.report import beaten_by, show_result


def result(**changes: Any) -> dict[str, Any]:
    """Return as much of a result as is printed."""
    return {
        "network": {"class": "PatchTST"},
        "parameters": 100,
        "dataset": {"name": "mine", "sha256": "0" * 64},
        "test": {"mse": 1.5, "mae": 1.0, "windows_scored": 158, "windows_dropped": 0},
        "as_published": {"mse": 1.4, "mae": 0.9, "windows_scored": 144},
        "floors": {"last_value": {"mse": 2.0, "mae": 1.2}, "seasonal_naive": None},
    } | changes


def test_network_that_is_no_better_than_a_floor_is_told_so() -> None:
    assert beaten_by(result()) == ""
    worse = result(floors={"last_value": {"mse": 1.25}, "window_mean": {"mse": 1.0}})
    assert beaten_by(worse) == (
        "no better than the window mean, which needs no training (MSE 1.0000)"
    )
    assert beaten_by(worse | {"parameters": 0}) == ""  # it is one of them


def test_scores_as_published_are_for_data_that_was_published(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_result(result())
    assert "as published" not in capsys.readouterr().out
    illness = next(iter(CATALOG["illness"].sha256.values()))
    show_result(result(dataset={"name": "illness", "sha256": illness}))
    assert "as published (144 windows)" in capsys.readouterr().out
