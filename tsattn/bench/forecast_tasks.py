"""Who forecasts what in ``tsattn bench forecast``: our forecaster and neuralforecast's."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsattn.bench.recipes import Recipe
from tsattn.data.calendar import HOURLY_FOUR
from tsattn.data.scaling import Scaler
from tsattn.errors import MissingExtraError
from tsattn.forecast import Forecaster
from tsattn.interop.published import to_state_dict
from tsattn.models import ForecastNetwork, PatchTST
from tsattn.training.artifact import write_artifact
from tsattn.training.checkpoint import FORMAT, describe_network

RECIPE = Recipe("etth1", "patchtst/etth1.yaml", 1)
_START = "2020-01-01"
Contender = Callable[[pd.DataFrame], Any]


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


def tasks(series: int, folder: Path, *, with_peers: bool) -> list[Task]:
    """Build what is timed: many series by the network of a recipe, seven by a default-width one.

    Args:
        series: of the first task.
        folder: for the exports that ours are loaded from.
        with_peers: whether neuralforecast takes part.

    Raises:
        MissingExtraError: neuralforecast takes part and is not installed.
    """
    _, context, horizon = RECIPE.sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = PatchTST(1, context, horizon)
    return [
        _task(name, network, count, folder / name, with_peers=with_peers)
        for name, network, count in (
            (f"{series:,} series, etth1", RECIPE.network(), series),
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


def _theirs(network: ForecastNetwork, frame: pd.DataFrame, batches: Mapping[str, int]) -> Contender:
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
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    options |= {"logger": False, "enable_checkpointing": False, **batches}
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
        **options,
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
