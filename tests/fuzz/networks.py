"""Small networks with the record that a training leaves, made without a training."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tests.forecast.made import long_frame, wide_frame
from tsattn.models import DLinear, EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.training import ForecastData
from tsattn.training.checkpoint import FORMAT, RECORD, describe_network

CONTEXT, HORIZON = 12, 4


@dataclass(frozen=True)
class Base:
    """A checkpoint and the data that it is meant for.

    Attributes:
        name: what it is called.
        frame: sound data.
        options: of `ForecastData`.
        build: makes the network of so many channels.
    """

    name: str
    frame: pd.DataFrame
    options: dict[str, Any]
    build: Callable[[int], ForecastNetwork]

    def write(self, folder: Path) -> Path:
        """Write the checkpoint into a folder and return its path."""
        data_file, file = folder / f"{self.name}.train.csv", folder / f"{self.name}.ckpt"
        self.frame.to_csv(data_file, index=False)
        data = ForecastData(str(data_file), context=CONTEXT, horizon=HORIZON, **self.options)
        network = self.build(data.channels)
        content = {
            "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()},
            "epoch": 0,
            "pytorch-lightning_version": "2.6.6",
            RECORD: {
                "format": FORMAT,
                "network": describe_network(network),
                "data": data.describe(),
                "training": {},
            },
        }
        torch.save(content, file)
        return file


def _dlinear(channels: int) -> ForecastNetwork:
    return DLinear(channels, CONTEXT, HORIZON, kernel_size=3)


def _patchtst(channels: int) -> ForecastNetwork:
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    return PatchTST(channels, CONTEXT, HORIZON, patch_length=4, **sizes)


def _transformer(channels: int) -> ForecastNetwork:
    return EncoderDecoderTransformer(
        channels, CONTEXT, HORIZON, d_model=8, num_heads=2, d_ff=8, encoder_layers=1
    )


def _counted() -> pd.DataFrame:
    frame = wide_frame(90)
    return frame.assign(date=np.arange(len(frame)) * 5 + 10)


def bases() -> tuple[Base, ...]:
    """Return one base of each kind."""
    holes = wide_frame(90).astype({"b": object})
    holes.loc[[3, 20, 21, 80], "b"] = None
    treated = {"missing": "mask", "gaps": "regularise", "duplicates": "mean"}
    return (
        Base("hourly", wide_frame(90), {}, _patchtst),
        Base("series", long_frame((90, 80, 70)), {}, _dlinear),
        Base("monthly", wide_frame(90, freq="ME"), {}, _dlinear),
        Base("counted", _counted(), {}, _dlinear),
        Base(
            "treated",
            holes.drop(index=[40, 41]),
            {**treated, "time_zone": "Europe/Berlin"},
            _patchtst,
        ),
        Base("filled", holes, {"missing": "interpolate"}, _transformer),
    )
