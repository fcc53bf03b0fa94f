"""Our networks inside neuralforecast itself: fit, predict, cross_validation, save and load."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("neuralforecast")

from neuralforecast import NeuralForecast
from neuralforecast.common._base_model import BaseModel
from neuralforecast.core import MODEL_FILENAME_DICT
from neuralforecast.losses.pytorch import GMM, DistributionLoss, HuberMQLoss, IQLoss, MQLoss
from neuralforecast.models import PatchTST as Theirs

import tsattn.interop.neuralforecast as adapters
from tests.interop.competing import watch_competitions
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.interop.neuralforecast import ActivePatchTST, ActiveTransformer, AutoActivePatchTST
from tsattn.interop.published import to_state_dict
from tsattn.models import PatchTST
from tsattn.nn.moe import CompeteSMoE, DenseToSparseGate, MoE, plan_competitions

H, INPUT, ROWS = 6, 18, 80
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
FEW: dict[str, Any] = {**QUIET, "max_steps": 3, "windows_batch_size": 8, "val_check_steps": 3}
SMALL: dict[str, Any] = {"num_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 16}
SMALL_TRANSFORMER: dict[str, Any] = {
    "encoder_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 16,
}  # fmt: skip


def patchtst(**options: Any) -> ActivePatchTST:
    return ActivePatchTST(H, INPUT, **{**SMALL, **FEW, **options})


def transformer(**options: Any) -> ActiveTransformer:
    return ActiveTransformer(H, INPUT, **{**SMALL_TRANSFORMER, **FEW, **options})


def series(name: str, level: float, seed: int) -> pd.DataFrame:
    steps = np.arange(ROWS)
    noise = np.random.default_rng(seed).standard_normal(ROWS)
    return pd.DataFrame(
        {
            "unique_id": name,
            "ds": pd.date_range("2021-01-01", periods=ROWS, freq="D"),
            "y": level + np.sin(steps * 2 * np.pi / 6) + 0.1 * noise,
        }
    )


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.concat([series("a", 3.0, 0), series("b", 40.0, 1)], ignore_index=True)


def predict(forecaster: NeuralForecast, **given: Any) -> pd.DataFrame:
    told = forecaster.predict(**given)
    assert isinstance(told, pd.DataFrame)
    return told


def trained(model: Any, frame: pd.DataFrame) -> Any:
    """Return the model after its few steps."""
    forecaster = NeuralForecast([model], freq="D")
    forecaster.fit(frame)
    return forecaster.models[0]


class OwnPatchTST(ActivePatchTST):
    """A user's subclass."""


MIXTURE = partial(MoE, num_experts=4, top_k=2)


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> NeuralForecast:
    """Every kind of model and of loss, trained for three steps; look, but change nothing."""
    models = [
        patchtst(value_activation="tanh"),
        patchtst(loss=MQLoss(level=[80]), alias="levels"),
        patchtst(loss=DistributionLoss("StudentT", level=[80]), alias="student"),
        patchtst(loss=GMM(n_components=2, level=[80]), alias="mixed"),
        patchtst(loss=IQLoss(), alias="implicit"),
        patchtst(feedforward=MIXTURE, alias="experts"),
        OwnPatchTST(H, INPUT, **SMALL, **FEW),
        transformer(feedforward=MIXTURE),
        transformer(loss=HuberMQLoss(level=[80]), alias="decoded"),
    ]
    forecaster = NeuralForecast(models, freq="D")
    forecaster.fit(frame, val_size=H)
    return forecaster


@pytest.fixture(scope="module")
def predicted(fitted: NeuralForecast) -> pd.DataFrame:
    return predict(fitted)


def test_every_loss_gives_its_columns_for_the_horizon_of_every_series(
    predicted: pd.DataFrame,
) -> None:
    assert {"ActivePatchTST", "ActiveTransformer", "OwnPatchTST", "experts"} <= set(predicted)
    for alias in ("levels", "decoded", "student", "mixed"):
        assert {f"{alias}-median", f"{alias}-lo-80", f"{alias}-hi-80"} <= set(predicted)
    assert len(predicted) == 2 * H
    assert np.isfinite(predicted.drop(columns=["unique_id", "ds"]).to_numpy()).all()


def test_forecasts_are_at_the_level_of_their_series(predicted: pd.DataFrame) -> None:
    for name, level in (("a", 3.0), ("b", 40.0)):
        own = predicted[predicted.unique_id == name]
        for column in ("ActivePatchTST", "levels-median", "student-median", "ActiveTransformer"):
            assert abs(own[column].mean() - level) < 4, column


def test_saved_models_of_every_class_forecast_identically(
    fitted: NeuralForecast, predicted: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(str(tmp_path / "saved"))
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".safetensors", ".json"}
    again = NeuralForecast.load(str(tmp_path / "saved"))
    assert {repr(model): type(model) for model in again.models} == {
        repr(model): type(model) for model in fitted.models
    }
    pd.testing.assert_frame_equal(predict(again)[list(predicted)], predicted, check_exact=True)
    experts = next(model for model in again.models if model.alias == "experts")
    assert experts.hparams["feedforward"]["class"] == "MoE"


def test_cross_validation_forecasts_every_window(frame: pd.DataFrame) -> None:
    models = [patchtst(), transformer()]
    forecaster = NeuralForecast(models, freq="D")
    scored = cast(Any, forecaster.cross_validation(frame, n_windows=2, step_size=H))
    assert len(scored) == 2 * 2 * H
    assert scored.groupby("unique_id").cutoff.nunique().tolist() == [2, 2]
    assert np.isfinite(scored[["ActivePatchTST", "ActiveTransformer"]].to_numpy()).all()


def test_a_name_of_neuralforecasts_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"NHITS of its own.*something else than 'NHITS'"):
        type("NHITS", (ActivePatchTST,), {})
    assert not issubclass(MODEL_FILENAME_DICT["nhits"], ActivePatchTST)
    assert MODEL_FILENAME_DICT["autoactivepatchtst"] is ActivePatchTST


@pytest.mark.parametrize("loss", [None, MQLoss(level=[80, 95])], ids=["one", "five"])
def test_patchtst_is_neuralforecasts_with_the_same_weights(loss: Any) -> None:
    ours = patchtst(loss=loss, patch_length=6, stride=3).eval()
    theirs = Theirs(
        H,
        INPUT,
        loss=cast(Any, ours.loss),
        encoder_layers=1,
        n_heads=2,
        hidden_size=8,
        linear_hidden_size=16,
        patch_len=6,
        stride=3,
        revin_subtract_last=False,
        **FEW,
    ).eval()
    result = theirs.load_state_dict(to_state_dict(ours.network), strict=False)
    assert result.unexpected_keys == []
    windows = {"insample_y": torch.randn(5, INPUT, 1)}
    with torch.inference_mode():
        expected = theirs(windows)
        torch.testing.assert_close(ours(windows), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (5, H, ours.loss.outputsize_multiplier)


def test_a_step_minimises_the_weighted_losses_of_the_layers_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixture = partial(MoE, num_experts=4, balance=0.3, router_z=0.02)
    model = patchtst(feedforward=mixture, dropout=0.0)
    logged: dict[str, Any] = {}
    monkeypatch.setattr(BaseModel, "training_step", lambda self, batch, _: self(batch).mean())
    monkeypatch.setattr(model, "log", lambda name, value, **more: logged.update({name: value}))
    windows = {"insample_y": torch.randn(5, INPUT, 1)}
    total = model.training_step(windows, 0)
    forecast = model.network(windows["insample_y"])
    losses = forecast.losses
    expected = forecast.mean.mean() + 0.3 * losses["balance"] + 0.02 * losses["router_z"]
    torch.testing.assert_close(total, expected)
    assert logged.keys() == {"train_balance", "train_router_z"}


@pytest.mark.parametrize(("balance", "learns"), [(0.0, False), (0.1, True)])
@pytest.mark.parametrize("build", [patchtst, transformer])
def test_a_gate_that_the_task_loss_does_not_reach_learns_from_its_balance(
    build: Any, balance: float, learns: bool, frame: pd.DataFrame
) -> None:
    mixture = partial(MoE, num_experts=4, top_k=1, normalisation="topk_softmax", balance=balance)
    after = trained(build(feedforward=mixture), frame)
    before = dict(build(feedforward=mixture).network.named_parameters())
    changed = {
        name
        for name, value in after.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    gates = {name for name in before if ".gate." in name}
    assert changed - gates
    assert gates
    assert (gates <= changed) if learns else not (gates & changed)


def test_what_goes_by_optimiser_steps_is_told_of_each(frame: pd.DataFrame) -> None:
    mixture = partial(MoE, gate=DenseToSparseGate, num_experts=3)
    after = trained(patchtst(feedforward=mixture), frame)
    steps = [value for name, value in after.state_dict().items() if name.endswith("gate.step")]
    assert [int(step) for step in steps] == [FEW["max_steps"]]


def test_competing_mixtures_follow_a_plan_for_the_whole_training(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    competed = watch_competitions(monkeypatch)
    build = partial(CompeteSMoE, num_experts=3, omega=0.5, warmup=0.25)
    after = trained(patchtst(feedforward=build, max_steps=8, val_check_steps=8), frame)
    alone = build(8)
    plan_competitions(alone, 8, after.random_seed)
    planned: list[bool] = []
    for _ in range(8):
        planned.append(alone.schedule.is_on)
        alone.schedule.after_step()
    assert competed[:8] == planned  # what follows is validation
    assert 0 < sum(planned) < 8
    step = next(v for name, v in after.state_dict().items() if name.endswith("schedule.step"))
    assert int(step) == 8


def test_a_description_builds_the_same_mixture_as_its_factory() -> None:
    one, two = (
        patchtst(feedforward=MIXTURE),
        patchtst(feedforward={"class": "MoE", "arguments": {"num_experts": 4, "top_k": 2}}),
    )
    for (name, value), (same, other) in zip(
        one.named_parameters(), two.named_parameters(), strict=True
    ):
        assert name == same
        assert torch.equal(value, other)


def covariates(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return a frame whose series is its covariate, what comes next, and static features."""
    drawn = np.random.default_rng(5).standard_normal(ROWS + H)
    parts = []
    for name, group in frame.groupby("unique_id"):
        future = pd.date_range(group.ds.iloc[-1], periods=H + 1, freq="D")[1:]
        ds = [*group.ds, *future]
        parts.append(pd.DataFrame({"unique_id": name, "ds": ds, "known": drawn, "y": 5 * drawn}))
        parts[-1]["weekday"] = pd.DatetimeIndex(parts[-1].ds).day_of_week
        parts[-1]["past"] = drawn[::-1]
    whole = pd.concat(parts, ignore_index=True)
    last = whole.groupby("unique_id").cumcount() >= ROWS
    static = pd.DataFrame({"unique_id": ["a", "b"], "size": [0.5, -0.5]})
    return whole[~last].reset_index(drop=True), whole[last].reset_index(drop=True), static


@pytest.mark.parametrize("build", [patchtst, transformer], ids=lambda build: build.__name__)
def test_a_signal_that_is_in_the_covariate_alone_is_found(
    frame: pd.DataFrame, build: Callable[..., Any]
) -> None:
    past, future, _ = covariates(frame)
    long: dict[str, Any] = {"max_steps": 250, "learning_rate": 1e-2, "windows_batch_size": 32}
    models = [build(futr_exog_list=["known"], alias="with", **long), build(alias="without", **long)]
    forecaster = NeuralForecast(models, freq="D")
    forecaster.fit(past)
    told = predict(forecaster, futr_df=future.drop(columns="y")).merge(future)
    error = {name: (told[name] - told.y).abs().mean() for name in ("with", "without")}
    assert error["with"] < 0.4 * error["without"]


@pytest.mark.parametrize(
    ("build", "loss"),
    [
        (patchtst, None),
        (patchtst, MQLoss(level=[80])),
        (patchtst, DistributionLoss("Normal", level=[80])),
        (transformer, None),
    ],
    ids=["patchtst", "quantiles", "distribution", "transformer"],
)
def test_all_kinds_of_covariates_are_taken_saved_and_loaded(
    frame: pd.DataFrame, tmp_path: Path, build: Callable[..., Any], loss: Any
) -> None:
    past, future, static = covariates(frame)
    model = build(
        loss=loss,
        futr_exog_list=["known", "weekday"],
        hist_exog_list=["past"],
        stat_exog_list=["size"],
        cat_exog_list=["weekday"],
        categorical_cardinalities={"weekday": 7},
        cat_emb_dim=2,
        alias="model",
        max_steps=6,
        learning_rate=1e-2,
    )
    assert model.network.covariate_sizes == (1 + 2, 1, 1)
    forecaster = NeuralForecast([model], freq="D")
    forecaster.fit(past, static_df=static)
    torch.manual_seed(0)  # a distribution's quantiles are sampled
    given = future.drop(columns=["y", "past"])
    told = predict(forecaster, futr_df=given)
    forecaster.save(str(tmp_path / "saved"))
    torch.manual_seed(0)
    again = predict(NeuralForecast.load(str(tmp_path / "saved")), futr_df=given)
    pd.testing.assert_frame_equal(again, told, check_exact=True)
    other = predict(forecaster, futr_df=given.assign(known=given.known * 3))
    column = told.columns[-1]
    assert not np.allclose(other[column], told[column])


def test_numbers_of_one_step_answer_to_covariates_each_in_its_own_way(frame: pd.DataFrame) -> None:
    model = patchtst(loss=MQLoss(level=[80]), futr_exog_list=["known"])
    network = model.network.eval()
    windows = torch.randn(2, INPUT, 1)
    known = torch.zeros(2, INPUT + H, 1)
    later = known.clone()
    later[:, INPUT + 2] = 1.0
    first, second = (
        model({"insample_y": windows, "futr_exog": one, "hist_exog": None, "stat_exog": None})
        for one in (known, later)
    )
    change = (second - first)[0]  # [h, numbers of a step]
    assert network.covariates is not None
    assert change.shape == (H, 3)
    assert not torch.allclose(change[2, 0], change[2, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leraning_rate": 0.1}, "no argument 'leraning_rate'; did you mean 'learning_rate'"),
        ({"d_modle": 4}, "did you mean 'd_model'"),
        ({"feedforward": {"class": "os.system"}}, "unknown part 'os.system'.*'class': 'MoE'"),
        ({"feedforward": {"kind": "MoE"}}, "describes no part"),
        ({"revin": True, "loss": DistributionLoss("Normal")}, "revin=True.*DistributionLoss"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(
    options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        patchtst(**options)


def test_a_distribution_is_scaled_by_neuralforecast_instead_of_revin() -> None:
    assert patchtst().network.init_args["revin"]
    distribution = patchtst(loss=DistributionLoss("Normal"))
    assert not distribution.network.init_args["revin"]
    assert distribution.scaler.scaler_type == "standard"
    assert patchtst(scaler_type="robust").scaler.scaler_type == "robust"


def test_auto_searches_with_optuna_and_reloads_as_the_model(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    def config(trial: Any) -> dict[str, Any]:
        activation = trial.suggest_categorical("value_activation", ["identity", "tanh"])
        return {**SMALL, **FEW, "input_size": INPUT, "value_activation": activation}

    auto = AutoActivePatchTST(H, config=config, num_samples=2)
    forecaster = NeuralForecast([auto], freq="D")
    forecaster.fit(frame, val_size=H)
    (searched,) = forecaster.models
    assert len(searched.results.trials) == 2
    assert isinstance(searched.model, ActivePatchTST)
    told = predict(forecaster)
    forecaster.save(str(tmp_path / "saved"))
    again = NeuralForecast.load(str(tmp_path / "saved"))
    assert [type(model) for model in again.models] == [ActivePatchTST]
    pd.testing.assert_frame_equal(predict(again), told, check_exact=True)


@pytest.mark.parametrize("horizon", [1, 7, 24])
def test_every_draw_of_the_default_space_builds_a_model(horizon: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = AutoActivePatchTST.get_default_config(horizon, "optuna")
    assert callable(config)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        drawn = config(study.ask())
        assert ActivePatchTST(horizon, **{**drawn, **QUIET}).h == horizon
    samplers = AutoActivePatchTST.get_default_config(horizon, "ray")
    assert isinstance(samplers, dict)
    assert set(samplers) == set(drawn)


def load_alone() -> None:
    """Run the module's first lines under another name."""
    path = Path(str(adapters.__file__))
    spec = importlib.util.spec_from_file_location("alone", path)
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_without_neuralforecast_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuralforecast", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsattn\[neuralforecast\]'"):
        load_alone()


def test_an_older_neuralforecast_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.1.9")
    with pytest.raises(MissingExtraError, match=r"3\.3 or newer, found 3\.1\.9"):
        load_alone()


def test_nothing_is_written_into_the_working_folder(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forecaster = NeuralForecast([patchtst()], freq="D")
    forecaster.fit(frame, val_size=H)
    forecaster.predict()
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_a_plain_module_of_ours() -> None:
    network = patchtst().network
    assert isinstance(network, PatchTST)
    assert (network.channels, network.context, network.horizon) == (1, INPUT, H)
