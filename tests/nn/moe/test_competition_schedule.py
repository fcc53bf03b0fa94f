"""The plan of competitions: how often, how many at a time, and the same after a resume."""

import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from tsattn.nn.moe import CompeteSMoE, CompetitionSchedule, plan_competitions
from tsattn.nn.moe.competition_schedule import ScheduleSettings, plan
from tsattn.nn.stepping import after_step


def planned(steps: int, layers: int, **options: object) -> torch.Tensor:
    settings = {"omega": 0.07, "warmup_steps": 0, "max_layers": None, "seed": 0} | options
    return plan(steps, layers, **settings)  # pyright: ignore


def drawn(steps: int, layers: int, omega: float, warmup_steps: int, seed: int) -> torch.Tensor:
    """What the layers draw before anything is moved."""
    chance = torch.rand(
        steps, layers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return (chance < omega) & (torch.arange(steps) >= warmup_steps)[:, None]


def moved_one_by_one(wanted_TL: torch.Tensor, bound: int, warmup_steps: int) -> list[set[int]]:
    """Equations 8 and 9 as they stand: layer by layer, step by step."""
    steps, layers = wanted_TL.shape
    final: list[set[int]] = []
    for layer in range(layers):
        earlier = [sum(t in other for other in final) for t in range(steps)]  # eq. 8
        wanted = {t for t in range(steps) if wanted_TL[t, layer]}
        active = {t for t in wanted if earlier[t] + 1 <= bound}
        waiting: list[int] = []
        for t in sorted(wanted - active):
            later = (
                u
                for u in range(max(t + 1, warmup_steps), steps)
                if earlier[u] + 1 <= bound and u not in active  # eq. 9
            )
            found = next(later, None)
            waiting.append(t) if found is None else active.add(found)
        for _ in waiting:
            before = [
                u for u in range(warmup_steps, steps) if earlier[u] + 1 <= bound and u not in active
            ]
            active |= set(before[-1:])
        final.append(active)
    return final


@given(
    steps=st.integers(1, 60),
    layers=st.integers(1, 5),
    omega=st.floats(0, 1),
    warmup_steps=st.integers(0, 10),
    bound=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_the_plan_is_that_of_the_equations(
    steps: int, layers: int, omega: float, warmup_steps: int, bound: int, seed: int
) -> None:
    assume(omega * layers <= bound)
    plan_TL = planned(
        steps, layers, omega=omega, warmup_steps=warmup_steps, max_layers=bound, seed=seed
    )
    wanted = drawn(steps, layers, omega, warmup_steps, seed)
    expected = moved_one_by_one(wanted, bound, warmup_steps)
    assert [set(row.nonzero().flatten().tolist()) for row in plan_TL.T] == expected
    assert plan_TL.sum(1).max() <= bound
    assert not plan_TL[:warmup_steps].any()


def test_every_layer_competes_as_often_as_it_drew_and_omega_in_the_mean() -> None:
    plan_TL = planned(20_000, 6, max_layers=1, warmup_steps=1000)
    assert torch.equal(plan_TL.sum(0), drawn(20_000, 6, 0.07, 1000, 0).sum(0))
    shares = plan_TL[1000:].double().mean(0)
    torch.testing.assert_close(shares, torch.full((6,), 0.07).double(), atol=0.006, rtol=0)
    assert plan_TL.sum(1).max() == 1


def test_a_seed_decides_the_plan() -> None:
    assert torch.equal(planned(500, 3, seed=5), planned(500, 3, seed=5))
    assert not torch.equal(planned(500, 3, seed=5), planned(500, 3, seed=6))


def test_a_longer_plan_begins_as_the_shorter_one() -> None:
    short, long = (planned(steps, 4, omega=0.2, max_layers=1) for steps in (500, 900))
    assert torch.equal(short[:450], long[:450])


@pytest.mark.parametrize(
    ("layers", "omega", "most"), [(3, 0.07, 1), (24, 0.07, 6), (3, 1.0, 3), (8, 0.5, 4)]
)
def test_without_a_bound_a_quarter_of_the_layers_may_compete_or_as_many_as_must(
    layers: int, omega: float, most: int
) -> None:
    assert planned(3000, layers, omega=omega).sum(1).max() == most


def test_more_competitions_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"omega=0\.5 ask for 1\.5 layers .* max_layers=1; lower"):
        planned(10, 3, omega=0.5, max_layers=1)


def network(**options: object) -> nn.Sequential:
    settings: dict[str, object] = {"omega": 0.3, "warmup": 0.1, "max_layers": 1} | options
    return nn.Sequential(*(CompeteSMoE(4, num_experts=2, **settings) for _ in range(3)))  # pyright: ignore


def followed(net: nn.Module, steps: int) -> list[list[bool]]:
    """Whether each layer competes at each of the coming steps."""
    seen: list[list[bool]] = []
    for _ in range(steps):
        seen.append([m.is_on for m in net.modules() if isinstance(m, CompetitionSchedule)])
        after_step(net)
    return seen


def test_layers_follow_one_plan_together() -> None:
    net = network()
    plan_competitions(net, 200, seed=9)
    expected = planned(200, 3, omega=0.3, warmup_steps=20, max_layers=1, seed=9).tolist()
    assert followed(net, 205) == [*expected, *[[False] * 3] * 5]


def test_a_resumed_training_goes_on_with_its_plan() -> None:
    net = network()
    plan_competitions(net, 200, seed=9)
    whole = followed(copy.deepcopy(net), 200)
    followed(net, 70)
    again = network()
    again.load_state_dict(net.state_dict())
    assert not any(part.is_on for part in again.modules() if isinstance(part, CompetitionSchedule))
    plan_competitions(again, 200, seed=1234, resume=True)  # the seed of the plan counts
    assert followed(again, 130) == whole[70:]


def test_a_prolonged_training_keeps_its_past_and_its_warm_up() -> None:
    net = network()
    plan_competitions(net, 200, seed=9)
    followed(net, 120)
    plan_competitions(net, 900, resume=True)
    expected = planned(900, 3, omega=0.3, warmup_steps=20, max_layers=1, seed=9).tolist()
    assert followed(net, 780) == expected[120:]


def test_a_training_from_its_first_step_forgets_an_earlier_one() -> None:
    net = network()
    plan_competitions(net, 50)
    followed(net, 50)
    plan_competitions(net, 100, seed=3)
    assert (
        followed(net, 100)
        == planned(100, 3, omega=0.3, warmup_steps=10, max_layers=1, seed=3).tolist()
    )


def test_a_loop_that_steps_without_a_plan_is_told_what_to_call() -> None:
    net = network()
    with pytest.raises(RuntimeError, match=r"call tsattn\.nn\.moe\.plan_competitions"):
        after_step(net)
    plan_competitions(net, 10)
    net.load_state_dict(network().state_dict())
    with pytest.raises(RuntimeError, match="no plan to follow"):
        after_step(net)


def test_layers_of_one_network_share_their_settings() -> None:
    net = nn.Sequential(*network(), *network(omega=0.2))
    with pytest.raises(ValueError, match=r"share one schedule, got .*\(0\.3, 0\.1, 1\).*0\.2"):
        plan_competitions(net, 10)
    plan_competitions(nn.Linear(2, 2), 10)  # nothing to plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ScheduleSettings(omega=1.5), "omega must be between 0 and 1"),
        (ScheduleSettings(warmup=1.0), "warmup at least 0 and below 1"),
        (ScheduleSettings(max_layers=0), "max_layers must be at least 1, or None, got 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: ScheduleSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompetitionSchedule(settings)
