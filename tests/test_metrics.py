from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error
from torch import Tensor
from torchmetrics.functional import regression

from tsattn.metrics import SCORES, QuantileErrors, WindowErrors, naive_error, point_scores

HORIZON, CHANNELS = 5, 3


def draw(windows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, windows, HORIZON, CHANNELS)
    forecast, target = torch.randn(shape, generator=generator).to(dtype)
    return forecast, target * torch.tensor([0.1, 1.0, 30.0]).to(dtype)


def score(
    forecast: Tensor, target: Tensor, cuts: list[int], first: int = 0, order: Tensor | None = None
) -> dict[str, Tensor]:
    """Score windows in batches between the cuts."""
    errors = WindowErrors(CHANNELS, first=first)
    index = torch.arange(len(forecast)) if order is None else order
    for begin, end in pairwise([0, *cuts, len(index)]):
        batch = index[begin:end]
        errors.update(forecast[batch], target[batch], batch)
    return errors.compute()


@given(st.data())
def test_scores_are_those_of_all_windows_however_they_are_cut_and_ordered(
    data: st.DataObject,
) -> None:
    windows = data.draw(st.integers(1, 40))
    first = data.draw(st.integers(1, windows))
    cuts = sorted(data.draw(st.lists(st.integers(0, windows), max_size=6)))
    order = torch.tensor(data.draw(st.permutations(range(windows))))
    forecast, target = draw(windows, seed=data.draw(st.integers(0, 2**31)))
    scores = score(forecast, target, cuts, first, order)
    error = (forecast - target).double().numpy()
    expected = {
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "mse_first": (error[:first] ** 2).mean(),
        "mae_first": np.abs(error[:first]).mean(),
        "windows": windows,
        "windows_first": first,
    }
    for name, value in expected.items():
        assert scores[name].item() == pytest.approx(value, rel=1e-6), name
    per_channel = (error**2).mean((0, 1))
    assert scores["per_channel_mse"].numpy() == pytest.approx(per_channel, rel=1e-6)


def test_scikit_learn_gives_the_same() -> None:
    forecast, target = draw(64)
    scores = score(forecast, target, [7, 32])
    flat = target.flatten(0, 1).double(), forecast.flatten(0, 1).double()
    assert scores["mse"].item() == pytest.approx(mean_squared_error(*flat), rel=1e-6)
    assert scores["mae"].item() == pytest.approx(mean_absolute_error(*flat), rel=1e-6)
    by_channel = mean_squared_error(*flat, multioutput="raw_values")
    assert scores["per_channel_mse"].numpy() == pytest.approx(by_channel, rel=1e-6)


def test_a_hand_calculated_example() -> None:
    errors = WindowErrors(channels=2, first=1)
    forecast = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]]])
    errors.update(forecast, torch.zeros(2, 2, 2), torch.tensor([0, 1]))
    scores = {name: value.tolist() for name, value in errors.compute().items()}
    assert scores == {
        "mse": 21 / 8,
        "mae": 7 / 8,
        "per_channel_mse": [5 / 4, 4.0],
        "windows": 2,
        "mse_first": 5 / 4,
        "mae_first": 3 / 4,
        "windows_first": 1,
    }


def test_the_second_score_goes_by_the_index_of_a_window_not_by_its_place() -> None:
    forecast, target = draw(10)
    reverse = torch.arange(9, -1, -1)
    scores = score(forecast, target, [3], first=4, order=reverse)
    expected = (forecast - target)[:4].square().mean().item()
    assert scores["mse_first"].item() == pytest.approx(expected, rel=1e-6)
    assert scores["windows_first"] == 4


def test_reset_forgets_everything() -> None:
    errors = WindowErrors(CHANNELS, first=2)
    forecast, target = draw(8)
    errors.update(forecast + 100, target, torch.arange(8))
    errors.reset()
    errors.update(forecast, target, torch.arange(8))
    fresh = score(forecast, target, [], first=2)
    for name, value in errors.compute().items():
        torch.testing.assert_close(value, fresh[name], rtol=0, atol=0)


def test_many_batches_lose_no_digits() -> None:
    """A sum in float32 would stand still: 2^24 + 1 is 2^24 there."""
    errors = WindowErrors(channels=1)
    zeros = torch.zeros(1, 1, 1)
    errors.update(zeros + 2.0**12, zeros, torch.tensor([0]))
    for _ in range(100):
        errors.update(zeros + 1.0, zeros, torch.tensor([0]))
    assert errors.compute()["mse"].item() * 101 == pytest.approx(2.0**24 + 100, rel=1e-12)


def test_scores_keep_their_precision_when_the_task_changes_its_own() -> None:
    errors = WindowErrors(CHANNELS)
    torch.nn.ModuleDict({"errors": errors}).bfloat16()
    forecast, target = draw(50)
    errors.update(forecast, target, torch.arange(50))
    exact = (forecast - target).double().square().mean().item()
    assert errors.compute()["mse"].item() == pytest.approx(exact, rel=1e-6)


def test_half_precision_forecasts_are_scored_with_full_digits() -> None:
    forecast, target = draw(50, dtype=torch.bfloat16)
    exact = (forecast.double() - target.double()).square().mean().item()
    assert score(forecast, target, [])["mse"].item() == pytest.approx(exact, rel=1e-6)


def test_no_gradient_is_kept() -> None:
    forecast, target = draw(4)
    errors = WindowErrors(CHANNELS)
    errors.update(forecast.requires_grad_(), target, torch.arange(4))
    assert not errors.compute()["mse"].requires_grad


def test_a_nan_shows_in_the_score() -> None:
    forecast, target = draw(4)
    forecast[2, 0, 1] = float("nan")
    scores = score(forecast, target, [])
    assert scores["mse"].isnan()
    assert scores["per_channel_mse"].isnan().tolist() == [False, True, False]


def test_scores_can_be_added_over_processes() -> None:
    """Every state is a sum, so that the score of the union is that of the added states."""
    forecast, target = draw(9)
    parts = [WindowErrors(CHANNELS, first=4) for _ in range(2)]
    parts[0].update(forecast[:5], target[:5], torch.arange(5))
    parts[1].update(forecast[5:], target[5:], torch.arange(5, 9))
    parts[0].merge_state(parts[1])
    whole = score(forecast, target, [], first=4)
    for name, value in parts[0].compute().items():
        torch.testing.assert_close(value, whole[name])


def test_a_hand_calculated_example_of_all_point_scores() -> None:
    """Errors 1 and 2 of truths 4 and 2; the naive forecast erred by 2 and by 4."""
    forecast, target = torch.tensor([[3.0], [4.0]]), torch.tensor([[4.0], [2.0]])
    scores = point_scores(forecast, target, torch.tensor([[2.0], [4.0]]))
    found = {name: score.item() for name, score in scores.items()}
    assert found == pytest.approx(
        {"mse": 2.5, "mae": 1.5, "mase": 0.5, "wape": 3 / 6, "smape": (2 / 7 + 4 / 6) / 2}
    )
    assert tuple(scores) == SCORES


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))
def test_torchmetrics_gives_the_same_point_scores(seed: int, entries: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    forecast, target, naive = torch.randn((3, entries, groups), generator=generator).double()
    scores = point_scores(forecast, target, naive.abs() + 1)
    for name, score in (
        ("mse", regression.mean_squared_error),
        ("mae", regression.mean_absolute_error),
        ("wape", regression.weighted_mean_absolute_percentage_error),
        ("smape", regression.symmetric_mean_absolute_percentage_error),
    ):
        for group in range(groups):
            expected = score(forecast[:, group], target[:, group]).item()
            assert scores[name][group].item() == pytest.approx(expected, rel=1e-6), name


def test_point_scores_are_bounded_and_nan_where_nothing_defines_them() -> None:
    forecast = torch.tensor([[0.0, 1.0, -1.0]])
    target, naive = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    scores = point_scores(forecast, target, naive)
    assert scores["smape"].tolist() == [0, 2, 2]
    assert scores["wape"].isnan().tolist() == [True, True, False]
    assert scores["mase"].isnan().tolist() == [True, True, False]
    assert scores["mse"].tolist() == [0, 1, 4]


def test_naive_error_is_that_of_a_season_where_it_fits() -> None:
    steps = torch.tensor([1.0, 5.0, 2.0, 7.0]).reshape(1, 4, 1)
    assert naive_error(steps, 2).item() == pytest.approx(1.5)
    assert naive_error(steps, 4).item() == pytest.approx((4 + 3 + 5) / 3)
    assert naive_error(steps[:, :1], 1).isnan().item()


def test_errors_of_quantiles_are_scikit_learns_however_windows_are_cut() -> None:
    levels, pairs = [0.1, 0.5, 0.9], [(0, 2)]
    target_BHC = torch.randn(7, 3, 2)
    quantiles_BHCQ = torch.randn(7, 3, 2, 3).sort(-1).values
    quantiles_BHCQ[0, 0, 0, 2] = target_BHC[0, 0, 0]  # on the end of an interval is inside
    errors = QuantileErrors(levels, pairs)
    for part in (slice(0, 3), slice(3, 7)):
        errors.update(quantiles_BHCQ[part], target_BHC[part])
    scores = errors.compute()
    y, q = target_BHC.flatten().numpy(), quantiles_BHCQ.flatten(0, 2).numpy()
    losses = [mean_pinball_loss(y, q[:, k], alpha=level) for k, level in enumerate(levels)]
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert scores["share_below"] == pytest.approx((y[:, None] <= q).mean(0), rel=1e-6)
    (interval,) = scores["intervals"]
    inside = (q[:, 0] <= y) & (y <= q[:, 2])
    assert interval["level"] == 80
    assert interval["coverage"] == pytest.approx(inside.mean(), rel=1e-6)
    assert interval["width"] == pytest.approx((q[:, 2] - q[:, 0]).mean(), rel=1e-6)
    errors.reset()
    errors.update(quantiles_BHCQ[:1], target_BHC[:1])
    assert errors.entries == 6
