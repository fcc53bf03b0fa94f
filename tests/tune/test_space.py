"""Spaces: short names, bundles, and what a wrong one is told."""

from pathlib import Path

import optuna
import pytest

from tests.tune.fake import write_space
from tsattn.errors import ConfigError
from tsattn.resources import configs_dir
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.keys import key_of
from tsattn.tune.space import Space, read_space


def read(folder: Path, recipe: ParsedRecipe, text: str) -> Space:
    return read_space(write_space(folder, text), recipe)


@pytest.mark.parametrize(
    ("name", "network", "key"),
    [
        ("value_activation", "PatchTST", "model.network.value_activation"),
        ("activation", "PatchTST", "model.network.value_activation"),
        ("width", "PatchTST", "model.network.d_model"),
        ("heads", "EncoderDecoderTransformer", "model.network.num_heads"),
        ("depth", "PatchTST", "model.network.num_layers"),
        ("depth", "EncoderDecoderTransformer", "model.network.encoder_layers"),
        ("learning_rate", "PatchTST", "model.learning_rate"),
        ("batch_size", "PatchTST", "data.batch_size"),
        ("model.network.init_args.d_ff", "PatchTST", "model.network.d_ff"),
        ("model.schedule.warmup", "PatchTST", "model.schedule.warmup"),
        ("model.network.feedforward.top_k", "PatchTST", "model.network.feedforward.top_k"),
    ],
)  # fmt: skip
def test_name_stands_for_the_key_of_a_recipe(name: str, network: str, key: str) -> None:
    assert key_of(name, network) == key


@pytest.mark.parametrize(
    ("name", "network", "said"),
    [
        ("value_activatoin", "PatchTST", "did you mean 'value_activation'?"),
        ("learning_rat", "PatchTST", "did you mean 'learning_rate'?"),
        ("model.network.d_modle", "PatchTST", "did you mean 'model.network.d_model'?"),
        ("patch_length", "DLinear", "unknown setting 'patch_length'"),
        ("model.network.patch_length", "DLinear", "unknown setting"),
        ("horizon", "PatchTST", "changes what the validation loss measures"),
        ("loss", "PatchTST", "changes what the validation loss measures"),
        ("targets", "PatchTST", "changes what the validation loss measures"),
        ("data.dataset", "PatchTST", "changes what the validation loss measures"),
        ("gaps", "PatchTST", "changes what the validation loss measures"),
        ("duplicates", "PatchTST", "changes what the validation loss measures"),
        ("time_zone", "PatchTST", "changes what the validation loss measures"),
        ("quantiles", "PatchTST", "changes what the validation loss measures"),
        ("trainer.overfit_batches", "PatchTST", "changes what the validation loss measures"),
        ("run_dir", "PatchTST", "not a setting to tune"),
        ("seed_everything", "PatchTST", "not a setting to tune"),
    ],
)
def test_name_that_cannot_be_tuned_is_refused_with_the_reason(
    name: str, network: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        key_of(name, network)
    assert said in str(caught.value)


def test_values_become_words_of_the_command(tmp_path: Path, recipe: ParsedRecipe) -> None:
    space = read(
        tmp_path,
        recipe,
        """
        activation: {type: categorical, choices: [identity, tanh]}
        learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
        depth: {type: int, low: 1, high: 3}
        residual_scores: {type: categorical, choices: [true, false]}
        patches:
          type: categorical
          choices: {short: {patch_length: 6, stride: 3}, long: {patch_length: 12, stride: 6}}
        """,
    )
    values = {
        "activation": "tanh", "learning_rate": 0.0025, "depth": 2, "residual_scores": False,
        "patches": "short",
    }  # fmt: skip
    words = space.overrides(values)
    assert words == [
        *("--model.network.value_activation", "tanh", "--model.learning_rate", "0.0025"),
        *("--model.network.num_layers", "2", "--model.network.residual_scores", "false"),
        *("--model.network.patch_length", "6", "--model.network.stride", "3"),
    ]
    recipe.require_parsable(words)
    assert space.compared is not None
    assert space.compared.name == "activation"


def test_proposals_lie_within_the_space(tmp_path: Path, recipe: ParsedRecipe) -> None:
    space = read(
        tmp_path,
        recipe,
        """
        learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
        dropout: {type: float, low: 0.0, high: 0.4, step: 0.2}
        d_ff: {type: int, low: 8, high: 32, step: 8}
        """,
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(60)]
    rates = [values["learning_rate"] for values in drawn]
    assert 1e-4 <= min(rates) < 3e-4
    assert 3e-3 < max(rates) <= 1e-2
    assert {round(values["dropout"], 9) for values in drawn} == {0.0, 0.2, 0.4}
    assert {values["d_ff"] for values in drawn} == {8, 16, 24, 32}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("value_activatoin: {type: categorical, choices: [tanh]}", "did you mean 'value"),
        ("activation: {type: categorical, choices: [tanhh]}", "did you mean 'tanh'?"),
        ("activation: {type: categorical, choices: []}", "choices must be a list"),
        ("activation: {type: categorical, choices: [tanh, tanh]}", "twice"),
        ("activation: {type: categoric, choices: [tanh]}", "unknown type 'categoric'"),
        ("activation: [tanh]", "unknown type"),
        ("activation: {type: categorical, choice: [tanh]}", "did you mean 'choices'?"),
        ("d_model: {type: categorical, choices: [wide]}", "expected an integer"),
        ("d_model: {type: int, low: 8.5, high: 16}", "low must be one int, got 8.5"),
        ("learning_rate: {type: float, low: 1e-4, high: 1.0e-2}", "write 1.0e-4"),
        ("learning_rate: {type: float, low: 1.0, high: 0.1}", "`low <= high`"),
        ("learning_rate: {type: float, low: 0.0, high: 0.1, log: true}", "log"),
        ("d_ff: {type: int, low: 8, high: 16, step: a}", "must be one positive int, got 'a'"),
        ("d_ff: {type: int, low: 8, high: 16, step: 0}", "positive int, got 0"),
        ("dropout: {type: float, low: 0.0, high: 0.4, step: [1]}", "positive float, got [1]"),
        ("dropout: {type: float, low: 0.1, high: 0.4, log: maybe}", "log must be true or false"),
        ("activation: {type: [categorical], choices: [tanh]}", "unknown type ['categorical']"),
        ("learning_rate: {type: float, low: 0.1, high: .nan}", "high must be one float"),
        ("width: {type: int, low: 8, high: 16}\nd_model: {type: int, low: 8, high: 9}", "both set"),
        ("p: {type: categorical, choices: {a: 3}}", "a must be a bundle"),
        ("p: {type: categorical, choices: {a: {patch_lengt: 3}}}", "did you mean 'patch_length'?"),
        ("", "names no setting"),
        ("a: [", "is no YAML"),
    ],
)  # fmt: skip
def test_space_that_cannot_work_is_refused_in_words(
    tmp_path: Path, recipe: ParsedRecipe, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, recipe, text)
    assert said in str(caught.value)
    assert "space.yaml" in str(caught.value)


def test_missing_space_names_the_nearest_shipped_one(recipe: ParsedRecipe) -> None:
    with pytest.raises(ConfigError, match=r"did you mean configs/tune/activation\.yaml\?"):
        read_space("configs/tune/activatoin.yaml", recipe)


SPACES = sorted((configs_dir() / "tune").glob("*.yaml"))


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_shipped_space_fits_its_recipes(file: Path) -> None:
    network = "transformer" if file.stem == "transformer" else "patchtst"
    recipe = ParsedRecipe(["--config", f"{network}/illness"])
    space = read_space(f"tune/{file.stem}", recipe)
    assert space.compared is not None
    assert space.compared.choices == ("identity", "relu", "gelu", "silu", "tanh", "sigmoid")


def test_spaces_are_shipped() -> None:
    assert {file.stem for file in SPACES} >= {"activation", "patchtst", "transformer"}
