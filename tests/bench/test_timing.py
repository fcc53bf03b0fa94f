"""Paired statistics, on clocks that tests set."""

import gc
from collections.abc import Callable, Iterator

import pytest
import torch

from tsattn.bench.timing import Spread, measure, speed_up, steady
from tsattn.errors import ConfigError


class Hours:
    """A clock that moves only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, durations: list[float]) -> Callable[[], None]:
        left: Iterator[float] = iter(durations)

        def run() -> None:
            self.now += next(left)

        return run


def test_contenders_run_in_turn_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    clock = Hours()
    timed = {"a": clock.work([100, 1, 2, 3]), "b": clock.work([200, 4, 5, 6])}
    runs = {name: lambda n=name, run=run: (order.append(n), run()) for name, run in timed.items()}
    seconds = measure(runs, 3, warm_up=1, clock=clock)
    assert order == ["a", "b"] * 4
    assert seconds == {"a": [1, 2, 3], "b": [4, 5, 6]}


def test_what_runs_before_a_contender_is_not_timed() -> None:
    order: list[str] = []
    clock = Hours()
    prepare = clock.work([100, 100])

    def run(name: str, work: Callable[[], None]) -> Callable[[], None]:
        return lambda: (order.append(name), work())[1]

    seconds = measure(
        {"a": run("a", clock.work([1])), "b": run("b", clock.work([2]))},
        1,
        warm_up=0,
        before={"a": run("before a", prepare), "b": run("before b", prepare)},
        clock=clock,
    )
    assert order == ["before a", "a", "before b", "b"]
    assert seconds == {"a": [1], "b": [2]}


def test_speed_up_is_the_median_of_the_ratios_within_rounds() -> None:
    # the machine is ten times slower in the second round, for both
    ratio = speed_up(ours=[1.0, 10.0, 2.0], theirs=[2.0, 20.0, 8.0])
    assert ratio == Spread(median=2.0, lowest=2.0, highest=4.0)


def test_lists_that_were_not_measured_in_turn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        speed_up([1.0], [1.0, 2.0])


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_round_is_refused(rounds: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 1, got {rounds}"):
        measure({}, rounds)


def test_steady_sets_threads_and_stops_the_collector_and_puts_both_back() -> None:
    before = torch.get_num_threads()
    seen: list[tuple[int, bool]] = []

    def interrupted() -> None:
        with steady(before + 1):
            seen.append((torch.get_num_threads(), gc.isenabled()))
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        interrupted()
    assert seen == [(before + 1, False)]
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_no_thread_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"), steady(0):
        pass
