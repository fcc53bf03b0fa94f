"""Forecasts from a data frame: many series in one call, one window, and the time to load.

What is compared is what a person calls: `tsattn.Forecaster.predict` and the ``predict`` of
neuralforecast's `NeuralForecast`, both with a frame of timestamps in and a frame out, its PatchTST
with the weights of ours. The forecasts must agree before anything is timed.
"""

import logging
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsattn.bench import gate
from tsattn.bench.recipes import Recipe
from tsattn.bench.timing import Spread, measure, speed_up
from tsattn.data.calendar import HOURLY_FOUR
from tsattn.data.scaling import Scaler
from tsattn.errors import MissingExtraError
from tsattn.forecast import Forecaster
from tsattn.interop.published import to_state_dict
from tsattn.models import ForecastNetwork, PatchTST
from tsattn.training.artifact import write_artifact
from tsattn.training.checkpoint import FORMAT, describe_network

_RECIPE = Recipe("etth1", "patchtst/etth1.yaml", 1)
_START = "2020-01-01"
_LOADS = """
import time
import torch
start = time.perf_counter()
from tsattn import Forecaster
Forecaster.load({folder!r})
print(time.perf_counter() - start)
"""
Contender = Callable[[pd.DataFrame], Any]


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


@dataclass(frozen=True, eq=False)
class Task:
    """A frame, and who forecasts it.

    Attributes:
        name: for the table.
        frame: long, for our side and for theirs.
        contenders: by name, ours first.
    """

    name: str
    frame: pd.DataFrame
    contenders: Mapping[str, Contender]

    @property
    def series(self) -> int:
        """How many series there are."""
        return self.frame["unique_id"].nunique()


def options(add: Callable[..., Any]) -> None:
    """Add the options of ``tsattn bench forecast``."""
    add("--series", type=int, default=1000, help="series of the long frame")
    add("--peers", nargs="*", type=str, default=["neuralforecast"], help="neuralforecast, or none")


def tasks(series: int, folder: Path, *, with_peers: bool) -> list[Task]:
    """Build what is timed: many series by the network of a recipe, seven by a default-width one.

    Args:
        series: of the first task.
        folder: for the exports that ours are loaded from.
        with_peers: whether neuralforecast takes part.

    Raises:
        MissingExtraError: neuralforecast takes part and is not installed.
    """
    _, context, horizon = _RECIPE.sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = PatchTST(1, context, horizon)
    return [
        _task(name, network, count, folder / name, with_peers=with_peers)
        for name, network, count in (
            (f"{series:,} series, etth1", _RECIPE.network(), series),
            ("7 series, default width", wide, 7),
        )
    ]


def _task(
    name: str, network: ForecastNetwork, series: int, folder: Path, *, with_peers: bool
) -> Task:
    frame = draw_frame(series, network.context + network.horizon)
    ours = export_for(network, frame, folder)
    contenders: dict[str, Contender] = {"tsattn": ours.predict}
    if with_peers:
        contenders |= {
            "neuralforecast": _theirs(network, frame, {}),
            "neuralforecast, one batch": _theirs(
                network,
                frame,
                {
                    "batch_size": series,
                    "valid_batch_size": series,
                    "inference_windows_batch_size": series,
                },
            ),
        }
    return Task(name, frame, contenders)


def draw_frame(series: int, rows: int) -> pd.DataFrame:
    """Draw hourly random walks, one under the other, as ``unique_id, ds, y``."""
    walks = np.random.default_rng(0).normal(size=(series, rows)).cumsum(axis=1) / rows**0.5
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{place:05}" for place in range(series)], rows),
            "ds": np.tile(pd.date_range(_START, periods=rows, freq="h").to_numpy(), series),
            "y": walks.reshape(-1),
        }
    )


def export_for(network: ForecastNetwork, frame: pd.DataFrame, folder: Path) -> Forecaster:
    """Write a network of one channel as an export for the series of a frame, and load it.

    The scaler leaves values as they are, as neuralforecast's PatchTST does by default.
    """
    names = list(frame["unique_id"].unique())
    scaler = Scaler(torch.zeros(len(names), 1).double(), torch.ones(len(names), 1).double())
    data = {
        "name": "random walks",
        "layout": "long",
        "time_column": "ds",
        "channels": ["y"],
        "series": names,
        "step": "P0DT1H0M0S",
        "season": 24,
        "context": network.context,
        "horizon": network.horizon,
        "calendar": list(HOURLY_FOUR),
        "scaler_mean": scaler.mean_SC,
        "scaler_scale": scaler.scale_SC,
    }
    record = {"format": FORMAT, "network": describe_network(network), "data": data}
    folder.mkdir(parents=True)
    write_artifact(folder, record, network.state_dict(), {})
    return Forecaster.load(folder)


def _theirs(
    network: ForecastNetwork, frame: pd.DataFrame, batches: Mapping[str, int]
) -> Contender:
    """Return ``predict`` of a NeuralForecast whose PatchTST holds the weights of ours."""
    try:
        from neuralforecast import NeuralForecast
        from neuralforecast.models import PatchTST as Theirs
    except ImportError as error:
        raise MissingExtraError(
            f"the comparison with neuralforecast needs it, and it cannot be imported ({error}): "
            "pip install 'tsattn[bench]', or leave it out with --peers"
        ) from error
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    given = network.init_args
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    model: Any = Theirs(
        h=network.horizon,
        input_size=network.context,
        encoder_layers=given["num_layers"],
        n_heads=given["num_heads"],
        hidden_size=given["d_model"],
        linear_hidden_size=given["d_ff"],
        attn_dropout=0.0,
        patch_len=given["patch_length"] or 16,
        stride=given["stride"] or 8,
        revin=True,
        revin_subtract_last=False,
        res_attention=True,
        batch_normalization=False,  # their name for normalising first; the norm is batch norm
        max_steps=1,
        accelerator="cpu",
        devices=1,
        enable_checkpointing=False,
        **quiet,
        **batches,
    )
    forecaster = NeuralForecast(models=[model], freq="h")
    few = frame[frame["unique_id"].isin(frame["unique_id"].unique()[:4])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster.fit(few)  # one step, so that it may predict; its weights are replaced
    trained: Any = forecaster.models[0]
    trained.load_state_dict(to_state_dict(network))

    def predict(frame: pd.DataFrame) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return forecaster.predict(df=frame)

    return predict


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
    _, context, horizon = _RECIPE.sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PatchTST(7, context, horizon)
    long = draw_frame(7, context)
    frame = long.pivot(index="ds", columns="unique_id", values="y").reset_index()
    alone = export_for(PatchTST(1, context, horizon), long, folder / "alone")
    names = tuple(frame.columns[1:])
    trained = dict(vars(alone.trained)) | {"layout": "wide", "time_column": "ds", "names": names}
    ours = Forecaster(network, type(alone.trained)(**trained))

    def median_call() -> float:
        taken = [measure({"": partial(ours.predict, frame)}, 1, warm_up=0)[""][0]]
        taken += measure({"": partial(ours.predict, frame)}, calls, warm_up=0)[""]
        return statistics.median(taken)

    median_call()
    taken = [1e3 * median_call() for _ in range(rounds)]
    return ForecastTiming("one window of 7 channels, default width", "tsattn", 7, Spread.of(taken), {})


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
        MissingExtraError: neuralforecast is not installed.
    """
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
