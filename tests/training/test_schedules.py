"""Schedules against their formulas, against torch, and against what the optimiser really has."""

from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.training.tiny import BATCH, CONTEXT, HORIZON, STEPS
from tsattn.errors import ConfigError
from tsattn.models import DLinear
from tsattn.training import EpochDecay, ForecastData, ForecastTask, OneCycle, Schedule
from tsattn.training.schedules import Place

TYPE3 = EpochDecay(first_epoch_factor=0.04, hold_epochs=4, decay=0.9, beta1=0.95)
HALVING = EpochDecay(hold_epochs=2, decay=0.5)
CONSTANT = EpochDecay(first_epoch_factor=0.04, hold_epochs=1, decay=1.0, beta1=0.95)


def torch_one_cycle(total: int, warmup: float, lr: float, steps: int) -> list[tuple[float, float]]:
    """Return rate and beta1 that torch's own scheduler gives an Adam before every step."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=total, pct_start=warmup
    )
    seen: list[tuple[float, float]] = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    return seen


@pytest.mark.parametrize("total", [2, 3, 10, 63, 1000])
@pytest.mark.parametrize("warmup", [0.2, 0.3, 0.4])
def test_one_cycle_is_torchs_at_every_step(total: int, warmup: float) -> None:
    schedule = OneCycle(warmup)
    places = [Place(1, step, total) for step in range(total)]
    ours = [(0.7 * schedule.factor(place), schedule.momentum(place)) for place in places]
    for (rate, beta1), (torch_rate, torch_beta1) in zip(
        ours, torch_one_cycle(total, warmup, 0.7, total), strict=True
    ):
        assert rate == pytest.approx(torch_rate, rel=1e-9)
        assert beta1 == pytest.approx(torch_beta1, rel=1e-9)


def test_one_cycle_begins_and_ends_where_its_arguments_say() -> None:
    schedule = OneCycle(0.5, 10.0, 100.0, beta1_high=0.9, beta1_low=0.6)
    first, summit, last = (Place(1, step, 100) for step in (0, 49, 99))
    assert [schedule.factor(place) for place in (first, summit, last)] == pytest.approx(
        [0.1, 1.0, 0.001]
    )
    assert [schedule.momentum(place) for place in (first, summit, last)] == pytest.approx(
        [0.9, 0.6, 0.9]
    )


def test_one_cycle_of_a_single_step_stays_within_its_range() -> None:
    assert 0 < OneCycle().factor(Place(1, 0, 1)) <= 1


@pytest.mark.parametrize(
    ("schedule", "factors", "beta1"),
    [
        (TYPE3, {1: 0.04, 2: 1, 3: 1, 4: 1, 5: 0.9, 10: 0.9**6, 100: 0.9**96}, 0.95),
        (HALVING, {1: 1, 2: 1, 3: 0.5, 4: 0.25, 10: 2**-8}, 0.9),
        (CONSTANT, {1: 0.04, 2: 1, 50: 1, 100: 1}, 0.95),
        (EpochDecay(), {1: 1, 2: 1, 100: 1}, 0.9),
    ],
    ids=["type3", "halving", "constant", "default"],
)
def test_epoch_decay_follows_its_formula(
    schedule: EpochDecay, factors: dict[int, float], beta1: float
) -> None:
    for epoch, factor in factors.items():
        for step in (0, 5000):
            assert schedule.factor(Place(epoch, step, 10_000)) == pytest.approx(factor, rel=1e-12)
            assert schedule.momentum(Place(epoch, step, 10_000)) == beta1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (EpochDecay, {"decay": 0.0}),
        (EpochDecay, {"decay": 1.1}),
        (EpochDecay, {"hold_epochs": 0}),
        (EpochDecay, {"first_epoch_factor": 0.0}),
        (EpochDecay, {"beta1": 1.0}),
        (OneCycle, {"warmup": 0.0}),
        (OneCycle, {"warmup": 1.0}),
    ],
)
def test_schedule_refuses_an_argument_out_of_range(
    kind: type[Schedule], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        kind(**arguments)


class OptimizerLog(Callback):
    """Notes what the optimiser has when it makes a step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        (group,) = optimizer.param_groups
        self.seen.append((group["lr"], group["betas"][0]))


def optimizer_log(schedule: Schedule | None, epochs: int, **trainer: Any) -> OptimizerLog:
    log = OptimizerLog()
    task = ForecastTask(DLinear(7, CONTEXT, HORIZON), learning_rate=0.01, schedule=schedule)
    L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[log],
        **trainer,
    ).fit(task, ForecastData("illness", context=CONTEXT, horizon=HORIZON, batch_size=BATCH))
    return log


def test_optimizer_has_torchs_one_cycle_at_every_step() -> None:
    log = optimizer_log(OneCycle(0.4), 3)
    expected = torch_one_cycle(3 * STEPS, 0.4, 0.01, 3 * STEPS)
    assert [pytest.approx(pair, rel=1e-9) for pair in expected] == log.seen


def test_optimizer_has_the_epochs_rate_at_every_step() -> None:
    log = optimizer_log(TYPE3, 5)
    rates = [0.0004, 0.01, 0.01, 0.01, 0.009]
    expected = [pytest.approx((rate, 0.95)) for rate in rates for _ in range(STEPS)]
    assert log.seen == expected


def test_batches_of_one_accumulated_gradient_count_as_one_step() -> None:
    log = optimizer_log(OneCycle(0.4), 2, accumulate_grad_batches=3)
    expected = torch_one_cycle(2 * STEPS // 3, 0.4, 0.01, 2 * STEPS // 3)
    assert [pytest.approx(pair, rel=1e-9) for pair in expected] == log.seen


def test_rate_is_constant_without_a_schedule() -> None:
    assert set(optimizer_log(None, 1).seen) == {(0.01, 0.9)}


def test_time_alone_may_end_a_training_that_needs_no_length() -> None:
    briefly = {"max_time": {"milliseconds": 200}}
    assert optimizer_log(TYPE3, -1, **briefly).seen
    with pytest.raises(ConfigError, match=r"OneCycle goes by the length.*max_epochs or max_steps"):
        optimizer_log(OneCycle(0.4), -1, **briefly)
