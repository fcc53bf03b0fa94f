"""Training, validation and test on data with holes."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.tiny import stored_result
from tsattn.data.windows import WindowBatch, Windows
from tsattn.metrics import QuantileErrors, WindowErrors, naive_error, point_scores
from tsattn.models import (
    DLinear,
    EncoderDecoderTransformer,
    ForecastNetwork,
    LastValue,
    PatchTST,
)
from tsattn.training import ForecastData, ForecastTask
from tsattn.training.calling import forecast_of, mean_where_observed
from tsattn.training.command import run
from tsattn.training.conformal import calibrate, conformal_rank
from tsattn.training.folder import RunFolder
from tsattn.training.losses import make_loss


def batch_of(observed_BHC: torch.Tensor | None, seed: int = 0) -> WindowBatch:
    torch.manual_seed(seed)
    past, future = torch.randn(4, 9, 2), torch.randn(4, 3, 2)
    marks = torch.zeros(4, 9, 4), torch.zeros(4, 3, 4)
    if observed_BHC is not None:
        future = torch.where(observed_BHC, future, 0.0)
    return WindowBatch(past, future, *marks, torch.arange(4), observed_future_BHC=observed_BHC)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "quantile"])
def test_loss_is_the_mean_over_observed_targets(name: Any) -> None:
    observed = torch.rand(4, 3, 2) < 0.5
    batch, loss = batch_of(observed), make_loss(name)
    forecast = torch.randn(4, 3, 2, requires_grad=True)
    made = mean_where_observed(loss, forecast, batch)
    entries = [
        loss(forecast[place].reshape(1), batch.future_BHC[place].reshape(1))
        for place in zip(*observed.nonzero(as_tuple=True), strict=True)
    ]
    torch.testing.assert_close(made, torch.stack(entries).mean())
    made.backward()
    assert forecast.grad is not None
    assert (forecast.grad[~observed] == 0).all()


def test_batch_without_observed_targets_has_a_loss_of_zero_and_no_gradient() -> None:
    batch = batch_of(torch.zeros(4, 3, 2, dtype=torch.bool))
    network = DLinear(2, 9, 3, kernel_size=3)
    task = ForecastTask(network)
    task.log = lambda *args, **kwargs: None
    loss = task.training_step(batch, 0)
    assert loss.item() == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in network.parameters() if p.grad is not None)


def test_all_targets_observed_is_the_plain_loss_and_score() -> None:
    every = torch.ones(4, 3, 2, dtype=torch.bool)
    forecast, loss = torch.randn(4, 3, 2), make_loss("mse")
    plain, masked = batch_of(None), batch_of(every)
    torch.testing.assert_close(
        mean_where_observed(loss, forecast, masked), loss(forecast, plain.future_BHC)
    )
    scores = []
    for observed in (None, every):
        errors = WindowErrors(2, first=3)
        errors.update(forecast, plain.future_BHC, plain.index_B, observed)
        scores.append(errors.compute())
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])


def test_scores_leave_out_what_was_not_observed() -> None:
    forecast, target = torch.randn(9, 3, 2), torch.randn(9, 3, 2)
    observed = torch.rand(9, 3, 2) < 0.4
    errors = WindowErrors(2)
    for part in (slice(0, 4), slice(4, 9)):
        held = torch.where(observed, target, torch.nan)
        errors.update(forecast[part], held[part], torch.arange(9)[part], observed[part])
    error = np.where(observed, (forecast - target).double(), np.nan)
    scores = errors.compute()
    expected = np.nanmean(error**2, axis=(0, 1))
    np.testing.assert_allclose(scores["per_channel_mse"], expected, rtol=1e-6)
    assert scores["mse"].item() == pytest.approx(expected.mean(), rel=1e-6)
    assert scores["windows"] == 9


def test_point_scores_leave_out_what_was_not_observed() -> None:
    forecast, target = torch.randn(40, 3).double(), torch.randn(40, 3).double()
    naive = torch.rand(40, 3).double() + 0.1
    observed = torch.rand(40, 3) < 0.5
    observed[:, 2] = False
    scores = point_scores(forecast, torch.where(observed, target, torch.nan), naive)
    for group in range(2):
        own = observed[:, group]
        parts = (one[own, group].unsqueeze(1) for one in (forecast, target, naive))
        for name, value in point_scores(*parts).items():
            torch.testing.assert_close(scores[name][group], value[0])
    assert all(score[2].isnan() for score in scores.values())


def test_naive_error_takes_the_pairs_that_are_there() -> None:
    context = torch.tensor([1.0, 2.0, torch.nan, 5.0, 9.0]).view(1, 5, 1)
    assert naive_error(context, 1).item() == pytest.approx((1 + 4) / 2)
    assert naive_error(torch.full((1, 5, 1), torch.nan), 1).isnan().all()


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """A semicolon file of hours with decimal commas, day first, holes, a gap and a duplicate."""
    rows = 160
    walk = np.random.default_rng(0).normal(size=(rows, 2)).cumsum(axis=0).round(3)
    frame = pd.DataFrame(walk, columns=["a", "b"])
    times = pd.date_range("2020-01-01", periods=rows, freq="h")
    frame.insert(0, "date", times.strftime("%d.%m.%Y %H:%M"))
    frame.loc[::7, "a"] = np.nan
    frame.loc[30:55, "b"] = np.nan
    frame = frame.drop(index=[90, 91]).iloc[[*range(100), 99, *range(100, 158)]]
    frame.to_csv(tmp_path / "holes.csv", index=False, sep=";", decimal=",")
    return tmp_path / "holes.csv"


def small(kind: str, data: ForecastData) -> ForecastNetwork:
    sizes = data.channels, data.context, data.horizon
    narrow: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8}
    if kind == "PatchTST":
        return PatchTST(*sizes, patch_length=4, num_layers=2, **narrow)
    if kind == "Transformer":
        return EncoderDecoderTransformer(*sizes, **narrow)
    return DLinear(*sizes, kernel_size=3)


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
@pytest.mark.parametrize("kind", ["PatchTST", "Transformer", "DLinear"])
def test_networks_learn_from_data_with_holes(holes: Path, kind: str, missing: Any) -> None:
    data = ForecastData(
        str(holes), context=12, horizon=4, batch_size=8,
        missing=missing, gaps="regularise", duplicates="first", day_first=True,
    )  # fmt: skip
    torch.manual_seed(0)
    task = ForecastTask(small(kind, data), learning_rate=3e-3)
    trainer = L.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, data)
    assert all(p.isfinite().all() for p in task.parameters())
    scores = trainer.test(task, data, verbose=False)[0]
    assert np.isfinite([scores["test/mse"], scores["test/mae"]]).all()


def test_run_prints_and_stores_what_was_done(
    holes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    run([
        "fit", "--data.dataset", str(holes), "--data.context", "12", "--data.horizon", "4",
        "--data.day_first", "true", "--data.missing", "mask", "--data.gaps", "regularise",
        "--data.duplicates", "last",
        "--model.network", "DLinear", "--trainer.max_epochs", "1", "--trainer.logger", "false",
        "--run_dir", str(tmp_path / "run"),
    ])  # fmt: skip
    printed = capsys.readouterr().out
    assert "duplicate timestamps: 1 row(s) merged, last kept" in printed
    assert "gaps: 2 row(s) inserted" in printed
    assert "masked" in printed
    treatment = stored_result(RunFolder(tmp_path / "run"))["dataset"]["treatment"]
    assert treatment["missing"] == "mask"
    assert treatment["done"]["inserted"] == 2
    assert treatment["done"]["merged"] == 1


def test_conformal_scores_are_those_of_observed_targets() -> None:
    observed = torch.rand(200, 2) < 0.6
    observed[:, 1] |= torch.arange(200) % 3 == 0
    values = torch.where(observed, torch.randn(200, 2), 0.0)
    starts = torch.arange(180)
    windows = Windows(
        values, values[:, :0], starts, torch.zeros_like(starts), 9, 3, observed_RC=observed
    )
    network = LastValue(2, 9, 3)
    made = calibrate(lambda batch: forecast_of(network, batch), windows)
    batch = windows[:]
    error = (forecast_of(network, batch).mean - batch.truth()).abs().numpy()
    counts = np.isfinite(error).sum(axis=0)
    assert made.windows == (counts.min(),) * 2
    for level in (50.0, 80.0, 99.0):
        place = made.levels.index(level)
        for step, channel in np.ndindex(3, 2):
            own = np.sort(error[:, step, channel])
            rank = conformal_rank(int(counts[step, channel]), level)
            expected = own[rank - 1] if rank <= counts[step, channel] else np.inf
            assert made.scores_PLHK[0, place, step, channel].item() == pytest.approx(expected)


def test_quantile_errors_leave_out_what_was_not_observed() -> None:
    quantiles, target = torch.randn(5, 3, 2, 3).sort(dim=-1).values, torch.randn(5, 3, 2)
    observed = torch.rand(5, 3, 2) < 0.5
    whole, part = (QuantileErrors([0.1, 0.5, 0.9], [(0, 2)]) for _ in range(2))
    whole.update(quantiles, torch.where(observed, target, 99.0), observed)
    part.update(quantiles[observed].view(-1, 1, 1, 3), target[observed].view(-1, 1, 1))
    assert whole.compute() == part.compute()
