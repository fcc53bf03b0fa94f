"""Forecasts from a data frame: many series in one call, one window, and the time to load.

What is compared is what a person calls: `tsattn.Forecaster.predict` and the ``predict`` of
neuralforecast's `NeuralForecast`, both with a frame of timestamps in and a frame out, its PatchTST
with the weights of ours. The forecasts must agree before anything is timed.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsattn.bench import gate
from tsattn.bench.forecast_tasks import RECIPE, Task, draw_frame, export_for, tasks
from tsattn.bench.timing import Spread, measure, speed_up
from tsattn.errors import ConfigError
from tsattn.forecast import Forecaster
from tsattn.models import PatchTST

_LOADS = """
import time
import torch
start = time.perf_counter()
from tsattn import Forecaster
Forecaster.load({folder!r})
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class ForecastTiming:
    """One contender at one task.

    Attributes:
        task: what is forecast, or loaded.
        name: ``tsattn``, or a peer with how it was called.
        series: how many series or channels.
        milliseconds: time of one call.
        speed_ups: times faster than each peer, by its name; empty for a peer.
    """

    task: str
    name: str
    series: int
    milliseconds: Spread
    speed_ups: dict[str, Spread]

    @property
    def per_second(self) -> float:
        """Series a second."""
        return self.series / self.milliseconds.median * 1e3


def options(add: Callable[..., Any]) -> None:
    """Add the options of ``tsattn bench forecast``."""
    add("--series", type=int, default=1000, help="series of the long frame")
    add("--peers", nargs="*", type=str, default=["neuralforecast"], help="neuralforecast, or none")


def forecast_checks(chosen: Sequence[Task]) -> list[gate.Check]:
    """Compare the peers' forecasts with ours, series by series, and their timestamps."""
    checks: list[gate.Check] = []
    for task in chosen:
        ours, *theirs = task.contenders.items()
        expected = ours[1](task.frame).sort_values(["unique_id", "ds"])
        for name, predict in theirs:
            found = predict(task.frame).sort_values(["unique_id", "ds"])
            same = gate.same_answer(
                f"{task.name} {name}",
                torch.tensor(found.iloc[:, -1].to_numpy(np.float64)),
                torch.tensor(expected["y"].to_numpy(np.float64)),
            )
            times = (found["ds"].to_numpy() == expected["ds"].to_numpy()).all()
            detail = same.detail if times else f"{same.detail}; other timestamps"
            checks.append(gate.Check(same.name, bool(same.passed and times), detail))
    return checks


def time_forecasts(chosen: Sequence[Task], rounds: int) -> list[ForecastTiming]:
    """Let the contenders of every task take turns."""
    timings: list[ForecastTiming] = []
    for task in chosen:
        runs = {name: partial(one, task.frame) for name, one in task.contenders.items()}
        seconds = measure(runs, rounds)
        ours, *peers = seconds
        timings += [
            ForecastTiming(
                task.name,
                name,
                task.series,
                Spread.of([1e3 * one for one in taken]),
                {peer: speed_up(taken, seconds[peer]) for peer in peers} if name == ours else {},
            )
            for name, taken in seconds.items()
        ]
    return timings


def time_one_window(folder: Path, rounds: int, calls: int = 50) -> ForecastTiming:
    """Time seven channels of a wide frame, end to end, with a network of default width.

    Each round is the median of several calls.
    """
    _, context, horizon = RECIPE.sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PatchTST(7, context, horizon)
    long = draw_frame(7, context)
    frame = long.pivot(index="ds", columns="unique_id", values="y").reset_index()
    alone = export_for(PatchTST(1, context, horizon), long, folder / "alone")
    names = tuple(frame.columns[1:])
    trained = dict(vars(alone.trained)) | {"layout": "wide", "time_column": "ds", "names": names}
    ours = Forecaster(network, type(alone.trained)(**trained))

    taken = [
        1e3 * statistics.median(measure({"": partial(ours.predict, frame)}, calls)[""])
        for _ in range(rounds)
    ]
    name = "one window of 7 channels, default width"
    return ForecastTiming(name, "tsattn", 7, Spread.of(taken), {})


def time_loading(folder: Path, rounds: int) -> ForecastTiming:
    """Time importing and loading in processes of their own, after torch was imported."""
    taken: list[float] = []
    for _ in range(rounds):
        done = subprocess.run(  # noqa: S603 (our own words, no shell)
            [sys.executable, "-c", _LOADS.format(folder=str(folder))],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        taken.append(1e3 * float(done.stdout.split()[-1]))
    return ForecastTiming("load, beyond torch's import", "tsattn", 1, Spread.of(taken), {})


def run(
    series: int, peers: Sequence[str], rounds: int, show: Callable[[Sequence[gate.Check]], None]
) -> tuple[list[gate.Check], list[ForecastTiming]]:
    """Check, then time; nothing is timed where a check failed.

    Args:
        series: of the long frame.
        peers: ``neuralforecast`` or nothing.
        rounds: how often each contender is timed.
        show: is told the checks before anything is timed.

    Raises:
        ConfigError: fewer than one series.
        MissingExtraError: neuralforecast is not installed.
    """
    if series < 1:
        raise ConfigError(f"series must be at least 1, got {series}")
    with tempfile.TemporaryDirectory() as home:
        chosen = tasks(series, Path(home), with_peers=bool(peers))
        checks = forecast_checks(chosen)
        show(checks)
        if gate.failures(checks):
            return checks, []
        timings = time_forecasts(chosen, rounds)
        timings.append(time_one_window(Path(home), rounds))
        timings.append(time_loading(Path(home) / "alone", rounds))
    return checks, timings


def table(timings: Sequence[ForecastTiming]) -> tuple[list[str], list[list[str]]]:
    """Return the column titles and the rows of a table."""
    peers = list(dict.fromkeys(peer for timing in timings for peer in timing.speed_ups))
    rows = [
        [
            timing.task,
            timing.name,
            _figures(timing.milliseconds),
            "" if timing.task.startswith("load") else f"{timing.per_second:,.0f}",
            *(_figures(timing.speed_ups.get(peer)) for peer in peers),
        ]
        for timing in timings
    ]
    return ["task", "who", "ms", "series/s", *(f"x {peer}" for peer in peers)], rows


def _figures(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.3g} ({spread.lowest:.3g} to {spread.highest:.3g})"
