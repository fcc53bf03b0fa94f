"""What a checkpoint's record says of the data that its network was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from tsattn.data.calendar import FEATURES
from tsattn.data.covariates import FittedCovariates, recorded_covariates
from tsattn.data.panel import Layout, Step
from tsattn.data.scaling import Scaler
from tsattn.data.steps import decode_step
from tsattn.data.treatment import STRICT, Treatment, treatment_from
from tsattn.data.zones import known_clock
from tsattn.errors import CheckpointError
from tsattn.models import ForecastNetwork
from tsattn.tensors import CovariateSizes

_KEYS = ("layout", "time_column", "channels", "series", "step", "season", "context", "horizon",
         "calendar", "scaler_mean", "scaler_scale")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """The data that a network was trained on, as far as a forecast needs it.

    Attributes:
        layout: ``wide`` (one series of many channels) or ``long`` (many series of one channel).
        time_column: name of the time column.
        names: the channels of the wide layout, the series of the long one, in the trained order.
        step: distance of two rows.
        season: rows of a season.
        context: rows that the network looks at.
        horizon: rows that it forecasts.
        calendar: calendar features, in the order of the marks.
        scaler: mean and deviation of the training rows, one column per name.
        covariates: what helps to forecast, where there is anything.
        targets_chosen: whether the training named the columns to forecast, and did not read others.
        treatment: what was done with missing values and irregular timestamps.
        integers: whether time was counted in steps, without a calendar.
        clock: the clock that timestamps went by, where one is known.
        by_utc: whether steps of days and more went by UTC, in a zone whose clock is set.
        sha256: that of the data, where it is known.
        seen: per series (one for the wide layout) how many of its first rows the network was
            trained on, and how many of them it was trained or validated on.
    """

    layout: Layout
    time_column: str
    names: tuple[str, ...]
    step: Step
    season: int
    context: int
    horizon: int
    calendar: tuple[str, ...]
    scaler: Scaler
    covariates: FittedCovariates | None = None
    targets_chosen: bool = False
    treatment: Treatment = STRICT
    integers: bool = False
    clock: str | None = None
    by_utc: bool = False
    sha256: str = ""
    seen: tuple[tuple[int, int], ...] = ()

    @property
    def kind(self) -> str:
        """What a name is called in messages: ``channel`` or ``series``."""
        return "channel" if self.layout == "wide" else "series"

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are covariates, and are not forecast."""
        return self.covariates.names.columns if self.covariates else ()


def trained_of(record: Mapping[str, Any], network: ForecastNetwork, source: str) -> Trained:
    """Read and check the record of a checkpoint.

    Args:
        record: the checkpoint's record.
        network: its network.
        source: what messages call the checkpoint.

    Raises:
        CheckpointError: the record has no data, or contradicts itself or the network.
    """
    data = record.get("data")
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{source} says nothing of the data it was trained on; train with tsattn fit, or with "
            "ForecastData in L.Trainer().fit(task, data)"
        )
    missing = [key for key in _KEYS if key not in data]
    if missing:
        raise CheckpointError(f"{source}: its record lacks {', '.join(missing)}; take another one")
    try:
        trained = _parse(data)
        _require_agreement(trained, network, source)
    except CheckpointError:
        raise
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise CheckpointError(f"{source}: its record of the data is damaged: {error}") from error
    return trained


def _parse(data: Mapping[str, Any]) -> Trained:
    layout = data["layout"]
    if layout not in ("wide", "long"):
        raise ValueError(f"the layout {layout!r} is neither wide nor long")
    names = tuple(str(name) for name in data["channels" if layout == "wide" else "series"])
    step, start = decode_step(data["step"]), pd.Timestamp("2000-01-01")
    if not start + step > start:
        raise ValueError(f"the step {data['step']!r} does not lead forwards")
    return Trained(
        layout=layout,
        time_column=str(data["time_column"]),
        names=names,
        step=step,
        season=int(data["season"]),
        context=int(data["context"]),
        horizon=int(data["horizon"]),
        calendar=tuple(data["calendar"]),
        scaler=Scaler(
            data["scaler_mean"].double().reshape(1, -1),
            data["scaler_scale"].double().reshape(1, -1),
        ),
        covariates=recorded_covariates(data),
        targets_chosen=bool(data.get("targets_chosen", False)),
        treatment=treatment_from(data.get("treatment")),
        integers=bool(data.get("integers", False)),
        clock=known_clock(data.get("clock")),
        by_utc=bool(data.get("by_utc", False)),
        sha256=str(data.get("sha256") or ""),
        seen=tuple((int(train[1]), int(val[1])) for train, val, *_ in data.get("borders") or ()),
    )


def _sizes(trained: Trained) -> CovariateSizes:
    return trained.covariates.names.sizes if trained.covariates else CovariateSizes()


def _require_agreement(trained: Trained, network: ForecastNetwork, source: str) -> None:
    channels = len(trained.names) if trained.layout == "wide" else 1
    scaler = trained.scaler
    problems = {
        "names that repeat": len(set(trained.names)) != len(trained.names),
        "sizes that are not the network's": (channels, trained.context, trained.horizon)
        != (network.channels, network.context, network.horizon),
        "covariates that are not the network's": network.covariate_sizes != _sizes(trained),
        "covariates that are channels too": trained.layout == "wide"
        and bool(set(trained.beside) & set(trained.names)),
        "a scaler of another width": not len(trained.names)
        == scaler.mean_SC.shape[1]
        == scaler.scale_SC.shape[1],
        "a scaler that is not finite and positive": not (
            torch.isfinite(scaler.mean_SC).all()
            and torch.isfinite(scaler.scale_SC).all()
            and (scaler.scale_SC > 0).all()
        ),
        "unknown calendar features": any(name not in FEATURES for name in trained.calendar),
        "a season below 1": trained.season < 1,
        "weights that are no finite numbers": not all(
            bool(torch.isfinite(value).all()) for value in network.state_dict().values()
        ),
    }
    found = [problem for problem, holds in problems.items() if holds]
    if found:
        raise CheckpointError(f"{source} has {'; '.join(found)}; take another checkpoint")
