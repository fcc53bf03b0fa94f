"""What ours is compared with: the same mathematics where that is claimed."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tsattn.bench import footprint
from tsattn.bench.arithmetic import forward_gflop
from tsattn.bench.contenders import contender, runs_of
from tsattn.bench.peers import huggingface, neuralforecast, peers_of
from tsattn.bench.recipes import RECIPES, Recipe, with_impl
from tsattn.bench.train import operations, peer_checks
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.memory import peak_resident_mib

ETTH1, WEATHER, ILLNESS, TRANSFORMER = RECIPES
SMALL_TRANSFORMER = TRANSFORMER.with_batch(1)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_draw_what_their_network_takes(recipe: Recipe) -> None:
    batch = recipe.with_batch(2).draw()
    with torch.inference_mode():
        assert recipe.network().eval()(*batch.inputs).mean.shape == batch.target.shape


def test_sizes_are_those_that_are_compared_everywhere() -> None:
    assert [(r.name, r.batch, *r.sizes) for r in RECIPES] == [
        ("etth1", 128, 7, 336, 192),
        ("weather", 32, 21, 336, 192),
        ("illness", 16, 7, 104, 36),
        ("transformer", 32, 7, 96, 192),
    ]
    assert [str(product) for product in ETTH1.products] == [
        "37632x16 @ 16x16",
        "37632x16 @ 16x128",
        "37632x128 @ 128x16",
    ]


def test_an_implementation_is_put_into_a_copy() -> None:
    network = ILLNESS.network()
    changed = with_impl(network, "reference")
    assert [layer.attention.impl for layer in changed.layers] == ["reference"] * 3  # pyright: ignore
    assert [layer.attention.impl for layer in network.layers] == ["auto"] * 3  # pyright: ignore


PLAIN = (ILLNESS, SMALL_TRANSFORMER)


@pytest.mark.parametrize("recipe", PLAIN, ids=lambda recipe: recipe.name)
def test_plain_modules_with_our_weights_give_our_forecast(recipe: Recipe) -> None:
    (check,) = peer_checks(recipe, ["plain"])
    assert check.passed, check.detail


@pytest.mark.parametrize("recipe", PLAIN, ids=lambda recipe: recipe.name)
def test_plain_modules_drop_out_and_train(recipe: Recipe) -> None:
    made = contender(recipe.with_batch(1), "plain float32")
    before = [p.detach().clone() for p in made.module.parameters()]
    made.module.train()
    with torch.no_grad():
        assert not torch.equal(made.forecast(), made.forecast())
    runs_of(made, "float32")["step"]()
    after = list(made.module.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.unchecked
def test_neuralforecast_with_our_weights_gives_our_forecast() -> None:
    pytest.importorskip("neuralforecast", reason="the extra neuralforecast is not installed")
    (check,) = peer_checks(ILLNESS, ["neuralforecast"])
    assert check.passed, check.detail


@pytest.mark.unchecked
def test_hugging_face_takes_the_same_batch_and_forecasts_the_same_shape() -> None:
    pytest.importorskip("transformers", reason="the extra bench is not installed")
    recipe = ILLNESS.with_batch(2)
    made = huggingface(recipe, recipe.draw())
    assert made.forecast().shape == made.target.shape
    runs_of(made, "float32")["step"]()


@pytest.mark.parametrize(
    ("build", "module", "package"),
    [
        (neuralforecast, "neuralforecast.models", "neuralforecast"),
        (huggingface, "transformers", "transformers"),
    ],
)
def test_an_absent_peer_says_what_to_install(
    build: object, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}.*pip install 'tsattn\[bench\]'"):
        build(ILLNESS, ILLNESS.draw())  # pyright: ignore


def test_an_unknown_contender_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a peer nor an impl 'nobody'"):
        contender(ILLNESS, "nobody float32")
    assert set(peers_of(ILLNESS)) == {"neuralforecast", "huggingface", "plain"}
    assert set(peers_of(TRANSFORMER)) == {"plain"}


def counted(name: str, recipe: Recipe) -> float:
    """What torch's counter sees of a forward pass, in 1e9 operations."""
    made = contender(recipe, name)
    with FlopCounterMode(display=False) as counter:
        runs_of(made, "float32")["evaluation"]()
    return 1e-9 * counter.get_total_flops()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_arithmetic_is_what_plain_modules_do(recipe: Recipe) -> None:
    small = recipe.with_batch(1)
    seen = counted("plain float32", small)
    assert seen == pytest.approx(forward_gflop(small), rel=1e-3)  # the label is projected too


def test_a_step_is_three_times_the_arithmetic_of_an_evaluation() -> None:
    work = operations(ILLNESS)
    assert work["step"] == pytest.approx(3 * work["evaluation"])
    assert work["step"] == pytest.approx(work["forward"] + work["backward"])
    assert work["one window"] == pytest.approx(work["forward"] / 16)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_phases_leave_the_weights_alone_but_for_the_step(precision: str) -> None:
    made = contender(ILLNESS.with_batch(2), f"auto {precision}")
    runs = runs_of(made, precision)
    weights = [p.detach().clone() for p in made.module.parameters()]
    runs["forward"]()
    runs["loss"]()
    runs["backward"]()
    assert all(p.grad is not None for p in made.module.parameters())
    runs["evaluation"]()
    assert all(torch.equal(a, b) for a, b in zip(weights, made.module.parameters(), strict=True))
    runs["step"]()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in made.module.parameters())
    assert not torch.equal(weights[0], next(iter(made.module.parameters())))


def test_memory_of_a_training_is_measured_in_a_process_of_its_own() -> None:
    found = footprint.measure_memory(ILLNESS, "auto float32", threads=1)
    assert found is not None
    peak, growth = found
    assert 0 < growth < peak
    own = peak_resident_mib()
    assert own is not None
    assert 50 < peak < 10_000


def test_memory_of_what_cannot_run_is_unknown() -> None:
    assert footprint.measure_memory(ILLNESS, "nobody float32", threads=1) is None
