"""What ``tsattn bench moe`` compares: feed-forwards that are dense, and mixtures of experts.

All of them use equally many parameters for a token: two of eight experts, each half as wide as the
dense feed-forward. A mixture with competition takes two kinds of steps, which run apart: those at
which one of its layers competes, and free ones.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.bench.recipes import Recipe
from tsattn.models import PatchTST
from tsattn.nn.auxiliary import feed, loss_weights
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.moe import CompeteSMoE, MoE, QuadraticMonomialGate, QuadraticPolynomialGate
from tsattn.nn.moe.competition_schedule import CompetitionSchedule, plan
from tsattn.nn.stepping import after_step

NUM_EXPERTS, TOP_K, RANK = 8, 2, 8
PARTS = ("feed-forward", "network")
PHASES = ("step", "forward", "backward", "evaluation")
OMEGA = 0.07
"""How often a layer competes, after the warm-up."""
COMPETITION, COMPETING = "competition", "competing"
"""A mixture with competition, at free steps, and at steps at which one of its layers competes."""
_LEARNING_RATE = 1e-4
_PLANNED_STEPS = 100_000

_MIXTURE = partial(MoE, num_experts=NUM_EXPERTS, top_k=TOP_K)
MIXTURES: Mapping[str, Callable[..., MoE]] = MappingProxyType(
    {
        "linear": _MIXTURE,
        "polynomial": partial(_MIXTURE, gate=partial(QuadraticPolynomialGate, rank=RANK)),
        "monomial": partial(_MIXTURE, gate=partial(QuadraticMonomialGate, rank=RANK)),
        COMPETITION: partial(CompeteSMoE, num_experts=NUM_EXPERTS, top_k=TOP_K, omega=OMEGA),
    }
)
"""The mixtures by the name of their gate; that with competition has the linear one."""

NAMES = ("dense", *MIXTURES, COMPETING)

SIZES = (
    Recipe("weather", "patchtst/weather.yaml", 21, windows=32),
    Recipe("weather-4", "patchtst/weather.yaml", 21, windows=4),
    Recipe("etth1", "patchtst/etth1.yaml", 7),
)
"""Recipes whose feed-forward is replaced, at the sizes that are timed."""


@dataclass(frozen=True)
class Contender:
    """A feed-forward, or a network that has it, ready to run.

    Attributes:
        module: with parameters to train.
        forward: computes its output from the batch.
        loss: turns the output into what is differentiated.
    """

    module: nn.Module
    forward: Callable[[], Any]
    loss: Callable[[Any], Tensor]


def contender(size: Recipe, part: str, name: str) -> Contender:
    """Build what a name means, as a feed-forward alone or in the network of the recipe.

    Args:
        size: one of `SIZES`, or another recipe of a PatchTST.
        part: one of `PARTS`.
        name: one of `NAMES`.
    """
    kind = COMPETITION if name == COMPETING else name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = _alone(size, kind) if part == "feed-forward" else _in_network(size, kind)
    let_compete(made.module, competes=name == COMPETING)
    return made


def let_compete(module: nn.Module, *, competes: bool) -> None:
    """Let the first layer that can compete do so at every step from now on, or at none."""
    for place, schedule in enumerate(_schedules(module)):
        plan_T = torch.full((_PLANNED_STEPS,), competes and place == 0)
        schedule.follow(plan_T, step=0, warmup_steps=0, seed=0)


def competitions_per_step(module: nn.Module) -> float:
    """Return how many layers compete at a step after the warm-up, in the mean over a long plan."""
    schedules = _schedules(module)
    if not schedules:
        return 0.0
    omega, _, max_layers = schedules[0].settings
    how: dict[str, Any] = {"omega": omega, "max_layers": max_layers, "warmup_steps": 0, "seed": 0}
    return plan(_PLANNED_STEPS, len(schedules), **how).sum().item() / _PLANNED_STEPS


def _schedules(module: nn.Module) -> list[CompetitionSchedule]:
    return [part for part in module.modules() if isinstance(part, CompetitionSchedule)]


def tokens_of(size: Recipe) -> int:
    """Return how many tokens a layer of the recipe is given."""
    network = size.network()
    assert isinstance(network, PatchTST)
    return size.batch * size.channels * network.embed.num_patches


def runs_of(made: Contender, precision: str) -> Mapping[str, Callable[[], None]]:
    """Return the phases as functions without arguments.

    ``loss`` is what has to run before every ``backward``.
    """
    losses: list[Tensor] = []
    optimizer = torch.optim.Adam(made.module.parameters(), lr=_LEARNING_RATE)

    def forward() -> Any:
        made.module.train()
        with _autocast(precision):
            return made.forward()

    def loss() -> None:
        optimizer.zero_grad()
        losses[:] = [made.loss(forward())]

    def backward() -> None:
        losses.pop().backward()

    def step() -> None:
        loss()
        backward()
        optimizer.step()
        after_step(made.module)

    def evaluate() -> None:
        made.module.eval()
        with torch.inference_mode(), _autocast(precision):
            made.forward()

    def only_forward() -> None:
        forward()

    return {
        "step": step,
        "forward": only_forward,
        "loss": loss,
        "backward": backward,
        "evaluation": evaluate,
    }


def _alone(size: Recipe, name: str) -> Contender:
    width, hidden, dropout = (size.arguments[k] for k in ("d_model", "d_ff", "dropout"))
    if name == "dense":
        module: nn.Module = FeedForward(width, hidden, dropout)
    else:
        module = MIXTURES[name](width, active_d_ff=hidden, dropout=dropout)
    x_ND = torch.randn(tokens_of(size), width).requires_grad_()
    above_ND = torch.randn(x_ND.shape)
    weights = loss_weights(module)

    def forward() -> Any:
        return feed(module, x_ND)

    def loss(fed: Any) -> Tensor:
        x_ND.grad = None
        return _weighted(fed.losses, weights) + _handed_down(fed.output, above_ND)

    return Contender(module, forward, loss)


def _in_network(size: Recipe, name: str) -> Contender:
    batch = size.draw()
    network = size.network(**({} if name == "dense" else {"feedforward": MIXTURES[name]}))
    weights = loss_weights(network)

    def loss(forecast: Any) -> Tensor:
        mean = forecast.mean.float()
        return F.mse_loss(mean, batch.target) + _weighted(forecast.losses, weights)

    return Contender(network, lambda: network(*batch.inputs), loss)


def _weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))


class _HandDown(torch.autograd.Function):
    """Zero, whose gradient is a given tensor: what a layer above would hand down, at no cost."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, above: Tensor) -> Tensor:
        ctx.above = above.to(output.dtype)
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.above, None


def _handed_down(output: Tensor, above: Tensor) -> Tensor:
    zero = _HandDown.apply(output, above)
    assert isinstance(zero, Tensor)
    return zero


def _autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def names_for(names: Sequence[str]) -> list[str]:
    """Return the names with those that the others are compared with, in the order of `NAMES`."""
    return [name for name in NAMES if name in names or name in ("dense", "linear")]
