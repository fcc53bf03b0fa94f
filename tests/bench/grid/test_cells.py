"""From grid files to cells: which there are, in which order, and what cannot be a grid."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.grid.tiny import with_overrides, write_grid
from tests.training.tiny import RECIPE
from tsattn.bench.grid.cells import Cell, read_cells, select
from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS

TABLE2 = "configs/bench/table2.yaml"
CHEAPEST_FIRST = [
    "illness",
    "etth1",
    "etth2",
    "ettm1",
    "ettm2",
    "weather",
    "electricity",
    "traffic",
]


@pytest.fixture(scope="module")
def table2() -> list[Cell]:
    return read_cells([TABLE2])


def test_table2_has_two_networks_six_activations_eight_datasets_five_seeds(
    table2: list[Cell],
) -> None:
    assert len(table2) == len({cell.key for cell in table2}) == 2 * 6 * 8 * 5
    counts = {name: Counter(getattr(c.key, name) for c in table2) for name in table2[0].key._fields}
    assert set(counts["protocol"]) == {"table2"}
    assert counts["model"] == {"patchtst": 240, "transformer": 240}
    assert counts["value_activation"] == dict.fromkeys(VALUE_ACTIVATIONS, 80)
    assert counts["dataset"] == dict.fromkeys(CHEAPEST_FIRST, 60)
    assert counts["seed"] == dict.fromkeys(range(2021, 2026), 96)
    assert len(counts["config_hash"]) >= 12  # ETTh1 and ETTh2 may differ in the dataset alone


def test_seeds_are_outermost_and_cheap_datasets_first(table2: list[Cell]) -> None:
    place = [(cell.key.seed, CHEAPEST_FIRST.index(cell.key.dataset)) for cell in table2]
    assert place == sorted(place)


def test_cell_is_what_a_person_would_type(table2: list[Cell]) -> None:
    assert table2[5].words == (
        *("fit", "--config", "patchtst/illness", "--seed_everything", "2021"),
        *("--model.network.value_activation", "tanh"),
    )
    assert table2[5].name == "patchtst illness tanh 2021"
    assert table2[5].max_epochs == 100


def test_hash_covers_what_is_set_and_neither_seed_nor_activation(tmp_path: Path) -> None:
    def hashes(**changes: Any) -> set[str]:
        return {c.key.config_hash for c in read_cells([write_grid(tmp_path, **changes)])}

    (plain,) = hashes()
    assert hashes(seeds=[1], activations=["relu"], protocol="other") == {plain}
    (other,) = hashes(models=with_overrides(trainer__max_epochs=9))
    assert other != plain
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.read_text(encoding="utf-8")
    recipe.write_text("# a comment\n" + text.replace("seed_everything: 7", "seed_everything: 8"))
    assert hashes(models={"patchtst": {"recipe": str(recipe)}}) == {plain}
    recipe.write_text(text.replace("dropout: 0.3", "dropout: 0.4"))
    assert hashes(models={"patchtst": {"recipe": str(recipe)}}) not in ({plain}, {other})


def test_hash_covers_the_recipes_activation_where_the_grid_names_none(tmp_path: Path) -> None:
    def hash_of(activation: str, **changes: Any) -> str:
        recipe = tmp_path / "own.yaml"
        settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
        settings["model"]["network"].setdefault("init_args", {})["value_activation"] = activation
        recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
        models = {"mine": {"recipe": str(recipe), **changes}}
        grid = write_grid(tmp_path, models=models, activations=[], seeds=[1])
        (cell,) = read_cells([grid])
        return cell.key.config_hash

    assert hash_of("identity") != hash_of("tanh")
    network = "tsattn.bench.peer_networks.TrainMean"
    assert hash_of("identity", network=network) == hash_of("tanh", network=network)


def test_seeds_are_the_first_of_each_model() -> None:
    cells = read_cells(["configs/bench/peers.yaml"])
    chosen = select(cells, "dataset=illness", 1)
    assert {cell.key.model: cell.key.seed for cell in chosen} == {
        "last_value": 0, "window_mean": 0, "seasonal_naive": 0, "train_mean": 0,
        "dlinear": 2021, "neuralforecast_patchtst": 2021, "huggingface_patchtst": 2021,
    }  # fmt: skip
    assert len(select(cells, "dataset=illness,model=dlinear", 2)) == 2


def test_data_lie_where_the_recipe_has_them_and_the_hash_does_not_care(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSATTN_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "traffic.csv").write_text("date,a\n")
    given = {"datasets": ["traffic"], "seeds": [1], "activations": ["tanh"]}
    keys = []
    for root in ({}, {"data__root": str(tmp_path)}):
        models = with_overrides(data__dataset="traffic", **root)
        (cell,) = read_cells([write_grid(tmp_path, models=models, **given)])
        assert (cell.obstacle() is None) == bool(root)
        keys.append(cell.key)
    assert keys[0] == keys[1]


def test_hashes_of_the_committed_results_stay_what_they_are(table2: list[Cell]) -> None:
    known = {cell.key[1:3]: cell.key.config_hash for cell in table2}
    assert known["patchtst", "illness"] == "8bd6db475a6b"
    assert known["transformer", "illness"] == "640023debb20"


def test_only_and_seeds_choose(table2: list[Cell]) -> None:
    only = "dataset=illness, dataset=etth1,model=patchtst,activation=tanh"
    chosen = [cell.key[1:5] for cell in select(table2, only, 2)]
    assert chosen == [
        ("patchtst", "illness", "tanh", 2021),
        ("patchtst", "etth1", "tanh", 2021),
        ("patchtst", "illness", "tanh", 2022),
        ("patchtst", "etth1", "tanh", 2022),
    ]
    assert select(table2, None, None) == table2
    assert len(select(table2, "seed=2023", None)) == 96


@pytest.mark.parametrize(
    ("only", "seeds", "message"),
    [
        ("dataset=illnss", None, "no dataset 'illnss'.*illness, etth1.*did you mean 'illness'"),
        ("activation=tanhh", None, "no activation 'tanhh'.*did you mean 'tanh'"),
        ("data=illness", None, "expected name=value with a name among protocol, model, dataset"),
        ("illness", None, "expected name=value"),
        ("", 0, "--seeds 0: the grid has 5 seeds"),
        (None, 6, "--seeds 6: the grid has 5 seeds"),
    ],
)
def test_selection_of_nothing_is_an_error(
    table2: list[Cell], only: str | None, seeds: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        select(table2, only, seeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": ["tanhh"]}, r"grid\.yaml: unknown value activation 'tanhh' of patchtst; "
         "expected one of .*did you mean 'tanh'"),
        ({"models": {"patchtst": {"recipe": "patchtst/{dataset}"}}, "datasets": ["illnss"]},
         r"grid\.yaml: dataset 'illnss' of patchtst: no recipe .*did you mean patchtst/illness"),
        ({"seeds": []}, r"grid\.yaml is not a grid: seeds: .*at least 1"),
        ({"seeds": [-1]}, "seeds.0: .*greater than or equal to 0"),
        ({"seeds": [7, 7]}, "is there twice"),
        ({"sedes": [1]}, "sedes: Extra inputs"),
        ({"models": {"patchtst": {"recipe": "patchtst/{dataste}"}}},
         r"grid\.yaml: dataset 'illness' of patchtst: recipe 'patchtst/{dataste}': expected"),
        ({"models": with_overrides(trainer__max_epochs="5")},
         r"grid\.yaml: trainer.max_epochs of patchtst is '5'; expected a whole number"),
        ({"models": {"patchtst": {}}}, "models.patchtst.recipe: Field required"),
        ({"models": {"a/b": {"recipe": "x"}}}, "models"),
    ],
)  # fmt: skip
def test_grid_that_cannot_be_is_refused_with_file_and_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_cells([write_grid(tmp_path, **changes)])


def test_grid_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no grid nothing.*configs/bench/table2\.yaml"):
        read_cells(["nothing"])
    (tmp_path / "broken.yaml").write_text("protocol: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml cannot be read"):
        read_cells([tmp_path / "broken.yaml"])
    (tmp_path / "recipe.yaml").write_text("data: 3", encoding="utf-8")
    models = {"patchtst": {"recipe": str(tmp_path / "recipe.yaml")}}
    with pytest.raises(ConfigError, match=r"recipe\.yaml is no recipe with data and a network"):
        read_cells([write_grid(tmp_path, models=models)])


def test_cell_without_its_data_says_what_to_type(
    table2: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = {cell.key.dataset: cell for cell in table2}
    assert by_name["illness"].obstacle() is None
    assert by_name["traffic"].obstacle() == "traffic.csv is not here: tsattn data fetch traffic"
    (tmp_path / "traffic.csv").write_text("date,a\n")
    monkeypatch.setenv("TSATTN_DATA", str(tmp_path))
    assert by_name["traffic"].obstacle() is None
    own = with_overrides(data__dataset=str(tmp_path / "own.csv"))
    (cell,) = read_cells([write_grid(tmp_path, models=own, seeds=[1], activations=["tanh"])])
    assert cell.obstacle() == f"there is no file {tmp_path / 'own.csv'}"


def test_cell_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    models = {"peer": {"recipe": str(RECIPE), "module": "no_such_module", "extra": "bench"}}
    cells = read_cells([write_grid(tmp_path, models=models, activations=[])])
    assert [cell.key.value_activation for cell in cells] == ["", ""]
    assert cells[0].obstacle() == "no_such_module is not installed: pip install 'tsattn[bench]'"
