"""The estimator under scikit-learn's own checks and tools."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from tests.interop.competing import watch_competitions
from tsattn.errors import DataError, NonFiniteLossError
from tsattn.interop.sklearn import ActivePatchTSTRegressor
from tsattn.models import PatchTST
from tsattn.nn.moe import CompeteSMoE, DenseToSparseGate, MoE, plan_competitions

CONTEXT, HORIZON = 16, 4
SMALL: dict[str, Any] = {
    "num_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 16, "max_epochs": 2, "random_state": 0,
}  # fmt: skip

FLOAT32 = "the network computes in float32, whose last digits depend on the windows beside one"
EXPECTED_FAILURES = {
    "check_methods_subset_invariance": FLOAT32,
    "check_methods_sample_order_invariance": FLOAT32,
}
"""As docs/interop.md lists them; whether they fail depends on the machine's products."""


def small(**options: Any) -> ActivePatchTSTRegressor:
    return ActivePatchTSTRegressor(**{**SMALL, **options})


@pytest.fixture(scope="module")
def windows() -> tuple[np.ndarray, np.ndarray]:
    """A sine at level 50: windows and what follows them."""
    values = 50 + np.sin(np.arange(120) * 2 * np.pi / 8)
    rows = np.lib.stride_tricks.sliding_window_view(values, CONTEXT + HORIZON)
    return rows[:, :CONTEXT], rows[:, CONTEXT:]


def test_channel_that_is_constant_up_to_rounding_is_not_divided_by_a_remainder(
    windows: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = (np.stack([part, np.full_like(part, 0.1)], axis=2) for part in windows)
    y[-3:, :, 1] = 0.15  # the price changes once, in what is to be forecast
    flat = [part.reshape(len(part), -1) for part in (X, y)]
    assert np.std(np.full(X[..., 1].size, 0.1)) > 0  # what rounding leaves
    fitted = small(channels=2).fit(*flat)
    assert fitted.scale_.tolist() == pytest.approx([X[..., 0].std(), 1.0])
    assert max(fitted.loss_curve_) < 10


@pytest.mark.unchecked
def test_scikit_learns_checks_pass_but_for_those_listed() -> None:
    estimator = small(max_epochs=8, learning_rate=0.02, batch_size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks that do not apply are announced
        results = check_estimator(
            estimator, expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None
        )
    outcomes = {result["check_name"]: result["status"] for result in results}
    assert {name for name, status in outcomes.items() if status == "failed"} == set()
    assert sum(status == "passed" for status in outcomes.values()) >= 45
    assert {name for name, status in outcomes.items() if status == "xfail"} <= set(
        EXPECTED_FAILURES
    )


def test_a_window_is_forecast_alike_whatever_stands_beside_it(
    windows: tuple[np.ndarray, np.ndarray],
) -> None:
    model = small().fit(*windows)
    together = model.predict(windows[0])
    alone = np.concatenate([model.predict(window[None]) for window in windows[0][:5]])
    np.testing.assert_allclose(together[:5], alone, rtol=1e-6)


def test_a_sine_is_learned_in_its_own_unit(windows: tuple[np.ndarray, np.ndarray]) -> None:
    model = small(max_epochs=30, learning_rate=0.01, dropout=0.0).fit(*windows)
    assert model.score(*windows) > 0.9
    assert model.predict(windows[0]).dtype == np.float64
    assert len(model.loss_curve_) == 30
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_the_same_seed_gives_the_same_forecasts_and_leaves_torchs_stream_alone(
    windows: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_rng_state()
    one = small().fit(*windows).predict(windows[0])
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    torch.manual_seed(99)
    two = small().fit(*windows).predict(windows[0])
    np.testing.assert_array_equal(one, two)
    other = small(random_state=1).fit(*windows).predict(windows[0])
    assert not np.allclose(one, other, rtol=1e-9)


def test_forecasts_have_the_shape_of_the_targets(windows: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = windows
    assert small().fit(X, y).predict(X[:3]).shape == (3, HORIZON)
    assert small().fit(X, y[:, 0]).predict(X[:3]).shape == (3,)
    assert small().fit(X, y[:, :1]).predict(X[:3]).shape == (3, 1)


def test_channels_lie_flat_in_the_order_of_reshape(
    windows: tuple[np.ndarray, np.ndarray],
) -> None:
    X_NTC, y_NHC = (np.stack([part, 7 - 3 * part], axis=2) for part in windows)
    n = len(X_NTC)
    model = small(channels=2).fit(X_NTC.reshape(n, -1), y_NHC.reshape(n, -1))
    network = model.network_
    assert (network.channels, network.context, network.horizon) == (2, CONTEXT, HORIZON)
    told = model.predict(X_NTC.reshape(n, -1)).reshape(n, HORIZON, 2)
    np.testing.assert_allclose(told.mean(axis=(0, 1)), [50, 7 - 3 * 50], atol=4)
    with torch.inference_mode():
        scaled = (X_NTC - model.mean_) / model.scale_
        expected = network(torch.from_numpy(scaled).float()).mean.double().numpy()
    np.testing.assert_allclose(told, expected * model.scale_ + model.mean_, rtol=1e-6)


def test_training_is_that_of_the_network_alone(windows: tuple[np.ndarray, np.ndarray]) -> None:
    """Two steps of Adam by hand, on all windows at once, give the same weights."""
    X, y = windows
    model = small(dropout=0.0, batch_size=len(X)).fit(X, y)
    mean, scale = X.mean(), X.std()
    x_BTC = torch.from_numpy((X - mean) / scale).float()[..., None]
    y_BHC = torch.from_numpy((y - mean) / scale).float()[..., None]
    sizes = {name: SMALL[name] for name in ("num_layers", "d_model", "num_heads", "d_ff")}
    torch.manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    network = PatchTST(1, CONTEXT, HORIZON, dropout=0.0, **sizes)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(2):
        order = torch.randperm(len(X))
        loss = (network(x_BTC[order]).mean - y_BHC[order]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in network.named_parameters():
        torch.testing.assert_close(model.network_.get_parameter(name), value, rtol=1e-4, atol=1e-6)


def test_mixtures_are_trained_with_their_balance_and_their_steps(
    windows: tuple[np.ndarray, np.ndarray],
) -> None:
    gate = partial(MoE, num_experts=4, top_k=1, normalisation="topk_softmax")
    parts = {
        balance: small(feedforward=partial(gate, balance=balance)).fit(*windows).network_
        for balance in (0.0, 0.5)
    }
    without, balanced = (dict(network.named_parameters()) for network in parts.values())
    gates = [name for name in without if ".gate." in name]
    assert gates
    assert not any(torch.equal(without[name], balanced[name]) for name in gates)
    falling = partial(MoE, gate=DenseToSparseGate, num_experts=3)
    trained = small(feedforward=falling).fit(*windows).network_
    (step,) = [int(v) for n, v in trained.state_dict().items() if n.endswith("gate.step")]
    assert step == 2 * -(-len(windows[0]) // 32)


def test_competing_mixtures_follow_a_plan_for_the_whole_training(
    windows: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    competed = watch_competitions(monkeypatch)
    build = partial(CompeteSMoE, num_experts=4, omega=0.5, warmup=0.25)
    small(feedforward=build).fit(*windows)
    steps = 2 * -(-len(windows[0]) // 32)
    alone = build(8)
    plan_competitions(alone, steps, int(np.random.RandomState(0).randint(2**31 - 1)))
    planned: list[bool] = []
    for _ in range(steps):
        planned.append(alone.schedule.is_on)
        alone.schedule.after_step()
    assert competed == planned
    assert 0 < sum(planned) < steps


def test_a_pipeline_and_a_grid_search_work(windows: tuple[np.ndarray, np.ndarray]) -> None:
    settings: dict[str, Any] = {"scoring": "neg_mean_absolute_error", "error_score": "raise"}
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), small(max_epochs=1)),
        {"activepatchtstregressor__value_activation": ["identity", "tanh"]},
        cv=TimeSeriesSplit(2),
        **settings,
    )
    grid.fit(*windows)
    assert grid.predict(windows[0]).shape == windows[1].shape
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert len(cross_val_score(small(max_epochs=1), *windows, cv=3)) == 3


def test_horizons_in_another_unit_are_warned_of(windows: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = windows
    model = small(max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, y)
        model.fit(X, y[:, 0])
    for pipeline, target in (
        (make_pipeline(StandardScaler(), model), y * 50 + 1000),
        (TransformedTargetRegressor(model, transformer=StandardScaler()), y),
        (model, (y - y.mean()) * 50 + X.mean()),
    ):
        with pytest.warns(UserWarning, match="give X and y in one unit"):
            pipeline.fit(X + 100 * (pipeline is not model), target)


def test_a_clone_has_the_settings_and_nothing_of_the_fit(
    windows: tuple[np.ndarray, np.ndarray],
) -> None:
    model = small(value_activation="tanh", feedforward=partial(MoE, num_experts=2)).fit(*windows)
    copy: Any = clone(model)
    assert copy.value_activation == "tanh"
    assert copy.get_params().keys() == model.get_params().keys()
    with pytest.raises(NotFittedError):
        copy.predict(windows[0])


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, r"rows of X have 16 values.*3 channels.*reshape\(n, -1\)"),
        ({"channels": 8}, r"rows of y have 4 values.*8 channels"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"loss": "rmse"}, "unknown loss 'rmse'"),
        ({"value_activation": "tanhh"}, "unknown value_activation 'tanhh'"),
        ({"d_model": 9}, "multiple of num_heads, got d_model=9"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    options: dict[str, Any], message: str, windows: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options).fit(*windows)


def test_values_that_cannot_be_used_are_refused(windows: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = windows
    with pytest.raises(ValueError, match="NaN"):
        small().fit(np.where(X > 50.9, np.nan, X), y)
    with pytest.raises(DataError, match="too large to be standardised"):
        small().fit(X * 1e200, y)
    with pytest.raises(NonFiniteLossError, match="in epoch 1; try a learning_rate"):
        small().fit(X, y * 1e60)
    with pytest.raises(ValueError, match="dim 3"):
        small().fit(X[..., None], y)
    with pytest.raises(DataError, match=r"no finite forecast of X with values up to 1e\+300"):
        small().fit(X, y).predict(np.full_like(X, 1e300))
