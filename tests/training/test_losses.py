"""What training minimises, and that the named loss is the one that is minimised."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import epoch_table, fit
from tsattn.training.folder import RunFolder
from tsattn.training.losses import LossName, make_loss, quantile_loss

FORECAST = torch.tensor([0.0, 1.0, -2.0, 0.5])
TARGET = torch.tensor([0.5, 1.0, 1.0, 0.0])
ERRORS = [0.5, 0.0, 3.0, -0.5]


@pytest.mark.parametrize(
    ("name", "quantile", "terms"),
    [
        ("mse", 0.5, [e * e for e in ERRORS]),
        ("mae", 0.5, [abs(e) for e in ERRORS]),
        ("huber", 0.5, [0.125, 0.0, 2.5, 0.125]),
        ("quantile", 0.5, [abs(e) / 2 for e in ERRORS]),
        ("quantile", 0.9, [0.45, 0.0, 2.7, 0.05]),
    ],
)
def test_loss_is_the_mean_of_its_formula(
    name: LossName, quantile: float, terms: list[float]
) -> None:
    loss = make_loss(name, quantile)(FORECAST, TARGET)
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


def test_quantile_loss_is_least_at_the_quantile() -> None:
    loss = make_loss("quantile", 0.8)
    sample = torch.arange(101.0)
    worth = [loss(torch.full_like(sample, q), sample).item() for q in range(101)]
    assert worth.index(min(worth)) == 80


def test_quantile_loss_of_several_levels_is_their_mean_in_float64() -> None:
    levels = [0.1, 0.5, 0.975]
    target_BHC = torch.randn(5, 4, 2)
    quantiles_BHCQ = torch.randn(5, 4, 2, 3)
    error = target_BHC.double().numpy()[..., None] - quantiles_BHCQ.double().numpy()
    terms = np.where(error >= 0, np.array(levels) * error, (np.array(levels) - 1) * error)
    loss = quantile_loss(quantiles_BHCQ, target_BHC, levels)
    assert loss.item() == pytest.approx(terms.mean(), rel=1e-6)
    one = quantile_loss(quantiles_BHCQ[..., 2:], target_BHC, levels[2:])
    same = make_loss("quantile", 0.975)(quantiles_BHCQ[..., 2], target_BHC)
    torch.testing.assert_close(one, same)


@pytest.mark.unchecked
def test_unknown_loss_is_named_with_the_four_there_are() -> None:
    with pytest.raises(ValueError, match=r"'mze'.*mse, mae, huber, quantile"):
        make_loss("mze")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("quantile", [0.0, 1.0, 1.5, -0.1])
def test_quantile_outside_zero_to_one_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match=str(quantile)):
        make_loss("quantile", quantile)


@pytest.mark.parametrize(("words", "share"), [(["mae"], 1.0), (["quantile"], 0.5)])
def test_named_loss_is_the_one_that_training_uses(
    tmp_path: Path, words: list[str], share: float
) -> None:
    fit(tmp_path / "run", "--model.loss", *words, "--trainer.max_epochs", 1)
    (row,) = epoch_table(RunFolder(tmp_path / "run")).to_dict("records")
    assert float(row["val/loss"]) == pytest.approx(share * float(row["val/mae"]), rel=1e-5)
