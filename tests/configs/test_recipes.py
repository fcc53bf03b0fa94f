"""The sixteen recipes against PROTOCOL, and every shipped file against the command."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from tests.training.tiny import contents, fit_words, stored_result
from tsattn.cli import main
from tsattn.data import HOURLY_FOUR, find
from tsattn.data.load import find_file
from tsattn.models import NETWORKS, PatchTST
from tsattn.resources import configs_dir
from tsattn.training import EpochDecay, OneCycle, Schedule
from tsattn.training.command import run
from tsattn.training.folder import RunFolder
from tsattn.training.schedules import Place

CHANNELS = {
    "etth1": 7,
    "etth2": 7,
    "ettm1": 7,
    "ettm2": 7,
    "weather": 21,
    "electricity": 321,
    "traffic": 862,
    "illness": 7,
}
RECIPES = [f"{model}/{name}" for model in ("patchtst", "transformer") for name in CHANNELS]
OVERLAYS = ["cpu", "ddp", "demo", "gpu", "smoke"]


class Published(NamedTuple):
    """A row of the table of PROTOCOL section 3, with the parameters beside it."""

    context: int
    horizon: int
    patch: int
    stride: int
    d_model: int
    heads: int
    d_ff: int
    dropout: float
    lr: float
    batch: int
    patience: int
    schedule: str
    parameters: int


ETTH = Published(336, 192, 16, 8, 16, 4, 128, 0.3, 1e-4, 128, 100, "type3", 146_336)
ETTM = Published(336, 192, 16, 8, 128, 16, 256, 0.2, 1e-4, 128, 20, "cycle .4", 1_437_376)
PATCHTST = {
    "etth1": ETTH,
    "etth2": ETTH,
    "ettm1": ETTM,
    "ettm2": ETTM,
    "weather": ETTM._replace(schedule="type3"),
    "traffic": ETTM._replace(batch=24, patience=10, schedule="cycle .2"),
    "electricity": ETTM._replace(batch=32, patience=10, schedule="cycle .2"),
    "illness": Published(104, 36, 24, 2, 16, 4, 128, 0.3, 2.5e-3, 16, 100, "constant", 41_476),
}
# epoch: learning rate as published, for lr 1e-4 (type3) and 2.5e-3 (constant); beta1 .95 throughout
RATES = {
    "type3": {1: 4e-6, 2: 1e-4, 3: 1e-4, 4: 1e-4, 5: 0.9e-4, 10: 0.531441e-4},
    "constant": {1: 1e-4, 2: 2.5e-3, 4: 2.5e-3, 5: 2.5e-3, 10: 2.5e-3},
}
TRANSFORMER_PARAMETERS = {7: 10_540_039, 21: 10_590_229, 321: 11_665_729, 862: 13_605_214}


def settings_of(recipe: str) -> dict[str, Any]:
    """Return a recipe as it is written."""
    return yaml.safe_load((configs_dir() / f"{recipe}.yaml").read_text(encoding="utf-8"))


def schedule_of(settings: dict[str, Any]) -> Schedule:
    """Build the schedule that a recipe names."""
    given = settings["model"]["schedule"]
    kinds = {"EpochDecay": EpochDecay, "OneCycle": OneCycle}
    return kinds[given["class_path"]](**given["init_args"])


def network_of(settings: dict[str, Any], channels: int) -> Any:
    """Build the network that a recipe names, as the links size it."""
    given, data = settings["model"]["network"], settings["data"]
    sizes = (channels, data["context"], data["horizon"])
    return NETWORKS[given["class_path"]](*sizes, **given["init_args"])


def test_there_are_the_sixteen_recipes_the_generic_one_and_the_overlays() -> None:
    shipped = {
        path.relative_to(configs_dir()).with_suffix("").as_posix()
        for path in configs_dir().rglob("*.yaml")
    }
    assert shipped >= {*RECIPES, "patchtst/default", *(f"trainer/{name}" for name in OVERLAYS)}


@pytest.mark.parametrize("name", PATCHTST)
def test_patchtst_recipe_has_the_settings_of_the_protocol(name: str) -> None:
    row, settings = PATCHTST[name], settings_of(f"patchtst/{name}")
    data, model, network = settings["data"], settings["model"], settings["model"]["network"]
    arguments = network["init_args"]
    found = find(data["dataset"])
    assert found is not None
    assert found is find(name)
    assert found.channels == CHANNELS[name]
    assert (data["context"], data["horizon"]) == (row.context, row.horizon)
    assert data["batch_size"] == row.batch
    assert network["class_path"] == "PatchTST"
    assert (arguments["patch_length"], arguments["stride"]) == (row.patch, row.stride)
    assert arguments["d_model"] == row.d_model
    assert arguments["num_heads"] == row.heads
    assert arguments["d_ff"] == row.d_ff
    assert arguments["dropout"] == row.dropout
    assert arguments["num_layers"] == 3
    assert arguments["value_activation"] == "identity"
    assert arguments["residual_scores"] is True
    assert arguments["norm"] == "batch"
    assert arguments["end_padding"] is True
    assert arguments.get("recompute", False) == (
        CHANNELS[name] > 100
    )  # or it needs too much memory
    assert model["learning_rate"] == row.lr
    assert (model["loss"], model["optimizer"]) == ("mse", "adam")
    assert settings["trainer"]["max_epochs"] == 100
    assert settings["early_stopping"]["patience"] == row.patience


@pytest.mark.parametrize("name", PATCHTST)
def test_patchtst_recipe_builds_the_published_network(name: str) -> None:
    network = network_of(settings_of(f"patchtst/{name}"), CHANNELS[name])
    assert isinstance(network, PatchTST)
    assert network.embed.num_patches == 42
    assert sum(p.numel() for p in network.parameters()) == PATCHTST[name].parameters
    arguments = network.init_args  # what the recipe leaves to the defaults is published too
    assert (arguments["revin"], arguments["revin_affine"], arguments["subtract_last"]) == (
        True,
        False,
        False,
    )
    assert (arguments["prenorm"], arguments["individual_head"]) == (False, False)
    assert arguments["head_dropout"] == 0.0


@pytest.mark.parametrize("name", PATCHTST)
def test_patchtst_recipe_has_the_published_schedule_side_effect_included(name: str) -> None:
    row, settings = PATCHTST[name], settings_of(f"patchtst/{name}")
    schedule, lr = schedule_of(settings), settings["model"]["learning_rate"]
    if row.schedule.startswith("cycle"):
        total, warmup = 1000, float(row.schedule.split()[1])
        summit = round(warmup * total) - 1
        for step, rate, beta1 in (
            (0, lr / 25, 0.95),
            (summit, lr, 0.85),
            (total - 1, lr / 25e4, 0.95),
        ):
            place = Place(1, step, total)
            assert lr * schedule.factor(place) == pytest.approx(rate)
            assert schedule.momentum(place) == pytest.approx(beta1)
        return
    for epoch, rate in RATES[row.schedule].items():
        place = Place(epoch, (epoch - 1) * 63, 6300)
        assert lr * schedule.factor(place) == pytest.approx(rate)
        assert schedule.momentum(place) == 0.95


@pytest.mark.parametrize("name", CHANNELS)
def test_transformer_recipe_has_the_settings_of_the_protocol(name: str) -> None:
    settings = settings_of(f"transformer/{name}")
    data, model, network = settings["data"], settings["model"], settings["model"]["network"]
    context, label, horizon = (36, 18, 36) if name == "illness" else (96, 48, 192)
    assert find(data["dataset"]) is find(name)
    assert (data["context"], data["horizon"]) == (context, horizon)
    assert data["batch_size"] == 32
    assert tuple(data["calendar"]) == HOURLY_FOUR
    assert network["class_path"] == "EncoderDecoderTransformer"
    expected = {
        "label": label,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "d_model": 512,
        "num_heads": 8,
        "d_ff": 2048,
        "dropout": 0.05,
        "value_activation": "identity",
    }
    assert network["init_args"].items() >= expected.items()
    assert model["learning_rate"] == 1e-4
    assert (model["loss"], model["optimizer"]) == ("mse", "adam")
    assert settings["trainer"]["max_epochs"] == 10
    assert settings["early_stopping"]["patience"] == 3
    schedule = schedule_of(settings)
    for epoch, rate in {1: 1e-4, 2: 1e-4, 4: 0.25e-4, 5: 0.125e-4, 10: 1e-4 / 256}.items():
        place = Place(epoch, 254 * (epoch - 1), 2540)
        assert 1e-4 * schedule.factor(place) == pytest.approx(rate)
        assert schedule.momentum(place) == 0.9
    parameters = sum(p.numel() for p in network_of(settings, CHANNELS[name]).parameters())
    assert parameters == TRANSFORMER_PARAMETERS[CHANNELS[name]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_stands_alone(recipe: str) -> None:
    settings = settings_of(recipe)
    assert settings.keys() == {"seed_everything", "trainer", "early_stopping", "data", "model"}
    assert settings["seed_everything"] == 2021


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Write a short hourly file of a given width, once per width."""
    folder, written = tmp_path_factory.mktemp("synthetic"), dict[int, Path]()

    def write(channels: int) -> Path:
        if channels not in written:
            rows = 1100
            times = np.datetime64("2020-01-01T00") + np.arange(rows)
            values = np.random.default_rng(channels).integers(0, 1000, (rows, channels))
            lines = [",".join(["date", *(f"c{index}" for index in range(channels))])]
            lines += [
                f"{str(time).replace('T', ' ')}:00:00,{','.join(map(str, row))}"
                for time, row in zip(times, values.tolist(), strict=True)
            ]
            written[channels] = folder / f"width{channels}.csv"
            written[channels].write_text("\n".join(lines) + "\n")
        return written[channels]

    return write


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_runs(
    recipe: str, synthetic: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = recipe.partition("/")[2]
    info, beside = find(name), root.parent / "shared" / "datasets"
    assert info is not None
    if find_file(info, beside):
        words = ["--data.root", str(beside)]
    else:
        borders = "[600, 840, 1080]"
        words = ["--data.dataset", str(synthetic(CHANNELS[name])), "--data.borders", borders]
    batch = "1" if CHANNELS[name] > 100 else "2"  # the sizes of a batch are not what is tried here
    run(
        [
            *("fit", "--config", f"configs/{recipe}.yaml", "--trainer.fast_dev_run", "true"),
            *("--data.batch_size", batch, *words),
        ]
    )
    assert contents(tmp_path) == {}


def test_generic_recipe_runs_with_what_is_typed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.dataset", "illness", "--trainer.fast_dev_run", "true"]
    run(["fit", "--config", "configs/patchtst/default.yaml", *words])
    assert contents(tmp_path) == {}


def resolved(capsys: pytest.CaptureFixture[str], *recipes: str) -> dict[str, Any]:
    """Return the settings that recipes on top of one another come to."""
    words = [word for recipe in recipes for word in ("--config", recipe)]
    with pytest.raises(SystemExit) as leaving:
        main(["fit", *words, "--print_config"])
    assert leaving.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("cpu", {"accelerator": "cpu", "devices": 1, "precision": "32-true"}),
        ("gpu", {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"}),
        ("ddp", {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}),
        ("smoke", {"max_epochs": 1, "limit_train_batches": 2, "limit_test_batches": 2}),
        ("demo", {"max_epochs": 3}),
    ],
)
def test_overlay_changes_the_trainer_and_keeps_the_recipe(
    overlay: str, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "configs/patchtst/etth1.yaml"
    settings = resolved(capsys, recipe, f"configs/trainer/{overlay}.yaml")
    alone = resolved(capsys, recipe)
    assert settings["trainer"].items() >= expected.items()
    assert settings["data"] == alone["data"]
    assert settings["model"]["network"] == alone["model"]["network"]
    if overlay != "demo":
        assert settings["model"] == alone["model"]


def test_demo_trains_by_one_cycle(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolved(capsys, "patchtst/etth1", "trainer/demo")
    assert settings["model"]["schedule"]["class_path"].endswith("OneCycle")
    assert settings["model"]["schedule"]["init_args"]["warmup"] == 0.3


def test_smoke_overlay_runs_to_the_end_on_a_part_of_every_part(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert main([*fit_words(folder.path), "--config", "configs/trainer/smoke.yaml"]) == 0
    result = stored_result(folder)
    assert result["epochs"] == 1
    assert result["test"]["windows_scored"] == 2 * 64
    assert result["test"]["windows_dropped"] == 182 - 2 * 64
    assert folder.forecast_picture.is_file()
