"""The recipes beside Table 2: DLinear as published, and candidate B of the Transformer."""

from pathlib import Path

import pytest

from tests.configs.test_recipes import CHANNELS, network_of, schedule_of, settings_of
from tests.training.tiny import contents
from tsattn.data import HOURLY_FOUR, find
from tsattn.training.command import run
from tsattn.training.schedules import Place

# batch size and learning rate of the published scripts for horizon 192 (Illness: 36)
DLINEAR = {
    "illness": (32, 1e-2),
    "etth1": (32, 5e-3),
    "etth2": (32, 5e-2),
    "ettm1": (8, 1e-4),
    "ettm2": (32, 1e-3),
    "weather": (16, 1e-4),
    "electricity": (16, 1e-3),
    "traffic": (16, 5e-2),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_dlinear_recipe_has_the_published_settings(name: str) -> None:
    settings = settings_of(f"dlinear/{name}")
    data, model = settings["data"], settings["model"]
    assert find(data["dataset"]) is find(name)
    windows = (104, 36) if name == "illness" else (336, 192)
    assert (data["context"], data["horizon"]) == windows
    assert (data["batch_size"], model["learning_rate"]) == DLINEAR[name]
    assert (model["loss"], model["optimizer"]) == ("mse", "adam")
    assert settings["trainer"]["max_epochs"] == 10
    assert settings["early_stopping"]["patience"] == 3
    schedule = schedule_of(settings)
    assert [schedule.factor(Place(epoch, 0, 100)) for epoch in (1, 2, 3, 4)] == [1, 1, 0.5, 0.25]
    network = network_of(settings, CHANNELS[name])
    context, horizon = windows
    assert sum(p.numel() for p in network.parameters()) == 2 * (context + 1) * horizon


def test_dlinear_is_scored_on_the_windows_of_patchtst() -> None:
    for name in CHANNELS:
        ours, theirs = (settings_of(f"{kind}/{name}")["data"] for kind in ("dlinear", "patchtst"))
        same = ("dataset", "context", "horizon")
        assert [ours[key] for key in same] == [theirs[key] for key in same]


def test_candidate_b_is_the_network_of_candidate_a_trained_as_patchtst_is() -> None:
    a, b = settings_of("transformer/illness"), settings_of("transformer/illness_b")
    network = a["model"]["network"]
    arguments = network["init_args"] | {"label": 48}
    assert b["model"]["network"] == network | {"init_args": arguments}
    data = b["data"]
    assert (data["context"], data["horizon"], data["batch_size"]) == (104, 36, 128)
    assert tuple(data["calendar"]) == HOURLY_FOUR
    assert b["trainer"]["max_epochs"] == 100
    assert b["early_stopping"]["patience"] == 20
    assert b["model"]["learning_rate"] == 1e-4
    assert b["model"]["schedule"] == settings_of("patchtst/etth1")["model"]["schedule"]  # type3


@pytest.mark.parametrize("recipe", [*(f"dlinear/{name}" for name in CHANNELS)])
def test_dlinear_recipe_runs(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.dataset", "illness", "--data.context", "30", "--data.horizon", "6"]
    run(["fit", "--config", recipe, *words, "--trainer.fast_dev_run", "true"])
    assert contents(tmp_path) == {}


def test_candidate_b_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.batch_size", "2", "--trainer.fast_dev_run", "true"]
    run(["fit", "--config", "configs/transformer/illness_b.yaml", *words])
    assert contents(tmp_path) == {}
