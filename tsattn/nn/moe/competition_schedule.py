"""When which layer of a network competes: planned before training, for all layers together."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsattn.nn.stepping import Stepping
from tsattn.tensors import CompetitionPlan


class ScheduleSettings(NamedTuple):
    """How often the layers of a network compete.

    Attributes:
        omega: probability that a layer competes at a step.
        warmup: share of the training before the first competition.
        max_layers: how many layers compete at one step at most; None means a quarter of them, or
            as many as omega asks for in the mean where that is more.
    """

    omega: float = 0.07
    warmup: float = 0.05
    max_layers: int | None = None


class CompetitionSchedule(Stepping):
    """Tells a layer whether it competes at the coming optimiser step.

    It follows a row of the plan that `plan_competitions` makes for all layers of a network. The
    step, the seed of the plan and the end of the warm-up are part of the state, so that a resumed
    training goes on with the same plan.

    Args:
        settings: see `ScheduleSettings`.

    Raises:
        ValueError: a probability or share outside 0 to 1, or no layer allowed.

    Source: CompeteSMoE paper, section 2.3.2 and appendix B.
    """

    step: Tensor
    warmup_steps: Tensor
    seed: Tensor

    def __init__(self, settings: ScheduleSettings) -> None:
        super().__init__()
        if not 0 <= settings.omega <= 1 or not 0 <= settings.warmup < 1:
            raise ValueError(
                "omega must be between 0 and 1 and warmup at least 0 and below 1, got "
                f"omega={settings.omega}, warmup={settings.warmup}"
            )
        if settings.max_layers is not None and settings.max_layers < 1:
            raise ValueError(
                f"max_layers must be at least 1, or None, got {settings.max_layers}; omega=0 turns "
                "competition off"
            )
        self.settings = settings
        self.is_on = False
        self._plan_T: Tensor | None = None
        for name in ("step", "warmup_steps", "seed"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def follow(self, plan_T: Tensor, *, step: int, warmup_steps: int, seed: int) -> None:
        """Follow a plan from a step on; `plan_competitions` calls this."""
        self._plan_T = plan_T
        for name, value in (("step", step), ("warmup_steps", warmup_steps), ("seed", seed)):
            self.get_buffer(name).fill_(value)
        self._look(step)

    def after_step(self) -> None:
        """Go on to the next step.

        Raises:
            RuntimeError: there is no plan.
        """
        if self._plan_T is None:
            raise RuntimeError(
                "competing layers have no plan to follow: before a training loop of your own call "
                "tsattn.nn.moe.plan_competitions(network, total_steps, seed)"
            )
        self.step += 1
        self._look(int(self.step))

    def _look(self, step: int) -> None:
        plan_T = self._plan_T
        self.is_on = plan_T is not None and step < len(plan_T) and bool(plan_T[step])

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take over a state, whose plan has to be made again."""
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # pyright: ignore
        self._plan_T, self.is_on = None, False

    def extra_repr(self) -> str:
        """Name the settings."""
        return ", ".join(f"{name}={value}" for name, value in self.settings._asdict().items())


def plan_competitions(
    network: nn.Module, total_steps: int, seed: int = 0, *, resume: bool = False
) -> None:
    """Plan at which optimiser steps each competing layer of a network competes.

    The task does it when training starts; a training loop of one's own calls it before its first
    step, in every process with the same seed. Networks without competing layers are left alone.

    Args:
        network: the network, or a part of it.
        total_steps: optimiser steps of the whole training.
        seed: decides the plan.
        resume: go on from the step of the state that was loaded, with its seed and warm-up: what
            was planned up to there stays as it was, also where the training is prolonged.

    Raises:
        ValueError: layers of one network with different settings, or settings under which the
            layers cannot all have their share, see `plan`.
    """
    schedules = [part for part in network.modules() if isinstance(part, CompetitionSchedule)]
    if not schedules:
        return
    first, *others = schedules
    if any(other.settings != first.settings for other in others):
        every = ", ".join(str(tuple(part.settings)) for part in schedules)
        raise ValueError(
            f"competing layers of one network share one schedule, got (omega, warmup, max_layers) "
            f"of {every}"
        )
    step = int(first.step) if resume else 0
    warmup_steps = round(first.settings.warmup * total_steps)
    if resume:
        warmup_steps, seed = int(first.warmup_steps), int(first.seed)
    plan_TL = plan(
        total_steps,
        len(schedules),
        omega=first.settings.omega,
        warmup_steps=warmup_steps,
        max_layers=first.settings.max_layers,
        seed=seed,
    )
    for schedule, plan_T in zip(schedules, plan_TL.unbind(1), strict=True):
        schedule.follow(plan_T, step=step, warmup_steps=warmup_steps, seed=seed)


def plan(
    total_steps: int,
    layers: int,
    *,
    omega: float,
    warmup_steps: int,
    max_layers: int | None,
    seed: int,
) -> CompetitionPlan:
    """Return which layer competes at which step, [steps, layers].

    Every layer draws its steps after the warm-up with probability omega. Where ``max_layers`` of
    the layers before it compete already, it competes at the next step instead at which it has
    drawn nothing and there is room, or at the last one before where no later one is left; should
    there be none at all, it lapses. So the plan up to a step hardly depends on how many follow: a
    prolonged training keeps its past.

    Args:
        total_steps: optimiser steps of the training.
        layers: how many layers compete.
        omega: probability that a layer competes at a step.
        warmup_steps: steps without competition at the start.
        max_layers: how many layers compete at one step at most; see `ScheduleSettings`.
        seed: decides the draws.

    Raises:
        ValueError: ``max_layers`` is less than the layers ask for in the mean.

    Source: CompeteSMoE paper, appendix B, equations 8 and 9. The warm-up is never used as a free
    step, and of the free steps the next one is taken, as section 2.3.2 says.
    """
    bound = max(1, math.ceil(layers / 4), math.ceil(omega * layers))
    if max_layers is not None:
        bound = max_layers
    if omega * layers > bound:
        raise ValueError(
            f"{layers} layers that compete with omega={omega} ask for {omega * layers:.3g} layers "
            f"at a step, more than max_layers={max_layers}; lower omega or raise max_layers"
        )
    draws = torch.Generator("cpu").manual_seed(seed)
    chance_TL = torch.rand(total_steps, layers, generator=draws, dtype=torch.float64, device="cpu")
    plan_TL = chance_TL < omega
    plan_TL[:warmup_steps] = False
    earlier_T = plan_TL.new_zeros(total_steps, dtype=torch.int64)  # Q_prev, eq. 8
    for drawn_T in plan_TL.unbind(1):
        has_room_T = earlier_T + 1 <= bound  # eq. 9
        _move(drawn_T, has_room_T, warmup_steps)
        earlier_T += drawn_T
    return plan_TL


def _move(drawn_T: Tensor, has_room_T: Tensor, warmup_steps: int) -> None:
    """Move a layer's competitions from steps without room to free ones."""
    free_T = has_room_T & ~drawn_T
    free_T[:warmup_steps] = False
    free, excess = free_T.nonzero().flatten(), (drawn_T & ~has_room_T).nonzero().flatten()
    taken, place = list[int](), 0
    for start in torch.searchsorted(free, excess):
        place = max(place, int(start))
        taken.append(place)
        place += 1
    late = sum(place >= len(free) for place in taken)
    kept = taken[: len(taken) - late]
    left = sorted(set(range(len(free))) - set(kept), reverse=True)[:late]
    drawn_T[excess] = False
    drawn_T[free[torch.tensor(kept + left, dtype=torch.int64)]] = True
