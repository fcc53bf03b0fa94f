"""The recipes of mixtures: what they are made of, and that each runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_recipes import settings_of
from tests.training.tiny import contents
from tsattn.models import PatchTST
from tsattn.nn import FeedForward
from tsattn.nn.moe import FeedForwardExperts, MoE
from tsattn.nn.parts import build_part
from tsattn.resources import configs_dir
from tsattn.training.command import run

ROUTERS = {
    "smoe": "LinearGate",
    "xmoe": "CosineGate",
    "pcosine": "PerturbedCosineGate",
    "sigma": "SigmoidGate",
    "shared_v2": "LinearGate",
    "shared_v3": "LinearGate",
    "polynomial": "QuadraticPolynomialGate",
    "monomial": "QuadraticMonomialGate",
    "gaussian": "GaussianGate",
    "dense_to_sparse": "DenseToSparseGate",
    "hierarchical": "HierarchicalGate",
    "compete": "LinearGate",
}
RECIPES = [f"{router}_{name}" for router in ROUTERS for name in ("illness", "etth1")]


def described(given: Any) -> Any:
    """Return a part as `build_part` takes it from how a recipe writes it."""
    if isinstance(given, dict) and "class_path" in given:
        arguments = given.get("init_args", {}).items()
        return {
            "class": given["class_path"],
            "arguments": {name: described(value) for name, value in arguments},
        }
    return given


def network_of(settings: dict[str, Any]) -> PatchTST:
    """Build the network that a recipe of a mixture names."""
    data, arguments = settings["data"], dict(settings["model"]["network"]["init_args"])
    feedforward = build_part(described(arguments.pop("feedforward")))
    return PatchTST(7, data["context"], data["horizon"], feedforward=feedforward, **arguments)


def test_every_shipped_recipe_of_a_mixture_is_known() -> None:
    shipped = {path.stem for path in (configs_dir() / "moe").glob("*.yaml")}
    assert shipped >= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_the_one_of_the_dataset_but_for_its_mixture(recipe: str) -> None:
    router, _, name = recipe.rpartition("_")
    settings, dense = settings_of(f"moe/{recipe}"), settings_of(f"patchtst/{name}")
    arguments = settings["model"]["network"]["init_args"]
    feedforward = arguments.pop("feedforward")
    assert arguments.pop("value_activation") == "tanh"
    assert dense["model"]["network"]["init_args"].pop("value_activation") == "identity"
    assert settings == dense
    assert feedforward["class_path"] == ("CompeteSMoE" if router == "compete" else "MoE")
    assert feedforward["init_args"]["gate"]["class_path"] == ROUTERS[router]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_token_uses_the_hidden_units_of_the_dense_network(recipe: str) -> None:
    network = network_of(settings_of(f"moe/{recipe}"))
    layers = [module for module in network.modules() if isinstance(module, MoE)]
    assert len(layers) == 3
    for moe in layers:
        assert isinstance(moe.experts, FeedForwardExperts)
        shared = 0
        if moe.shared is not None:
            assert isinstance(moe.shared, FeedForward)
            shared = moe.shared.expand.out_features
        active = 2 * moe.experts.d_ff + shared
        assert 126 <= active <= 128
        assert (moe.num_experts, moe.top_k) == (8, 2)
        assert moe.experts.dropout.p == 0.3
    forecast = network(torch.randn(2, network.context, 7))
    (forecast.mean.square().mean() + sum(forecast.losses.values())).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_of_a_mixture_runs(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.fast_dev_run", "true", "--data.batch_size", "2"]
    run(["fit", "--config", f"configs/moe/{recipe}.yaml", *words])
    assert contents(tmp_path) == {}
