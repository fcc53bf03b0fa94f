"""Which checkpoints are taken, and what is said of those that are not."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.made import wide_frame
from tests.training.tiny import Finished
from tsattn.errors import CheckpointError
from tsattn.forecast import Forecaster
from tsattn.models import DLinear, PatchTST
from tsattn.training.checkpoint import RECORD, read_checkpoint


@pytest.fixture(scope="session")
def content(illness: Finished) -> dict[str, Any]:
    return read_checkpoint(illness.folder.best)


def test_run_folder_means_its_best_checkpoint(
    illness: Finished, forecaster: Forecaster, illness_frame: pd.DataFrame
) -> None:
    expected = forecaster.predict(illness_frame)
    for path in (illness.folder.best, str(illness.folder.path)):
        pd.testing.assert_frame_equal(Forecaster.load(path).predict(illness_frame), expected)


def test_places_without_a_checkpoint_are_refused(tmp_path: Path, illness: Finished) -> None:
    with pytest.raises(CheckpointError, match=r"folder without checkpoints/best\.ckpt"):
        Forecaster.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing"):
        Forecaster.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="is not a checkpoint that can be read"):
        Forecaster.load(illness.folder.config)


def test_network_of_your_own_is_given(
    content: dict[str, Any], tmp_path: Path, illness_frame: pd.DataFrame, forecaster: Forecaster
) -> None:
    arguments = content[RECORD]["network"]["arguments"] | {"value_activation": torch.tanh}
    nameless = copy.deepcopy(content)
    nameless[RECORD]["network"]["arguments"].pop("value_activation")
    nameless[RECORD]["network"]["not_stored"] = ["value_activation"]
    torch.save(nameless, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match="value_activation"):
        Forecaster.load(tmp_path / "own.ckpt")
    loaded = Forecaster.load(tmp_path / "own.ckpt", PatchTST(**arguments))
    pd.testing.assert_frame_equal(
        loaded.predict(illness_frame), forecaster.predict(illness_frame), rtol=1e-4
    )


TAMPERED: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": None}, "says nothing of the data"),
    "a key less": ({"data.step": ...}, "lacks step"),
    "another step": ({"data.step": "never"}, "record of the data is damaged"),
    "a step of no time": ({"data.step": "PT0S"}, "does not lead forwards"),
    "a step backwards": ({"data.step": "months:-1"}, "does not lead forwards"),
    "a step that is no text": ({"data.step": 7}, "record of the data is damaged"),
    "another layout": ({"data.layout": "tall"}, "'tall' is neither wide nor long"),
    "a scaler of text": ({"data.scaler_mean": "x"}, "record of the data is damaged"),
    "borders without ends": (
        {"data.borders": [[[], [0, 1], [1, 2]]]},
        "record of the data is damaged",
    ),
    "a scaler too short": ({"data.scaler_mean": torch.zeros(1, 3)}, "a scaler of another width"),
    "a scale of 0": ({"data.scaler_scale": torch.zeros(1, 7)}, "not finite and positive"),
    "a mean without data": (
        {"data.scaler_mean": torch.empty(1, 7, device="meta")},
        "record of the data is damaged",
    ),
    "a mean of NaN": ({"data.scaler_mean": torch.full((1, 7), np.nan)}, "not finite"),
    "fewer channels": ({"data.channels": ["a", "b"]}, "sizes that are not the network's"),
    "the same channels": ({"data.channels": ["a"] * 7}, "names that repeat"),
    "another context": ({"data.context": 35}, "sizes that are not the network's"),
    "a horizon without end": ({"data.horizon": 10**12}, "sizes that are not the network's"),
    "a calendar of its own": ({"data.calendar": ["moon"]}, "unknown calendar features"),
    "a season of 0": ({"data.season": 0}, "season below 1"),
    "a network too large to build": (
        {"network.arguments.d_model": 10**9},
        "d_model 1000000000 is more than the weights allow",
    ),
    "more layers than weights": (
        {"network.arguments.num_layers": 10**6},
        "num_layers 1000000 is more than the weights allow",
    ),
    "other weights": ({"network.arguments.d_ff": 17}, "do not fit"),
    "fewer than no weights": ({"network.arguments.d_ff": -3}, "d_ff"),
    "a part without a name": ({"network.arguments.feedforward": {}}, "cannot be built"),
    "an unknown argument": ({"network.arguments.colour": 1}, "cannot be built"),
    "an unknown network": ({"network.class": "os.system"}, "'os.system' is not one of"),
}


def tampered(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = changed[RECORD]
        for parent in parents:
            place = place[parent]
        if value is ...:
            place.pop(last)
        else:
            place[last] = value
    return changed


@pytest.mark.unchecked
@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_record_is_refused_with_the_reason(
    content: dict[str, Any], tmp_path: Path, case: str
) -> None:
    changes, message = TAMPERED[case]
    torch.save(tampered(content, changes), tmp_path / "tampered.ckpt")
    with pytest.raises(CheckpointError, match=message):
        Forecaster.load(tmp_path / "tampered.ckpt")


def test_weights_that_are_no_numbers_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(content)
    name = next(iter(changed["state_dict"]))
    changed["state_dict"][name] = torch.full_like(changed["state_dict"][name], torch.nan)
    torch.save(changed, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match="weights that are no finite numbers"):
        Forecaster.load(tmp_path / "nan.ckpt")


def test_every_changed_byte_of_the_weights_is_noticed(illness: Finished, tmp_path: Path) -> None:
    whole = illness.folder.best.read_bytes()
    weight = read_checkpoint(illness.folder.best)["state_dict"]["network.head.weight"]
    place = whole.index(weight.numpy().tobytes())
    file = tmp_path / "changed.ckpt"
    for offset in (0, 1, 100):
        changed = bytearray(whole)
        changed[place + offset] ^= 1
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"the checksum of .* is wrong"):
            Forecaster.load(file)


def test_file_cut_short_is_refused(illness: Finished, tmp_path: Path) -> None:
    whole = illness.folder.best.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.ckpt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"{length} bytes"):
            Forecaster.load(tmp_path / "cut.ckpt")


def test_forecaster_may_be_made_from_its_parts(wide: Forecaster) -> None:
    network = DLinear(3, 12, 4, kernel_size=3).train()
    network.load_state_dict(wide.network.state_dict())
    again = Forecaster(network, wide.trained)
    assert repr(again).startswith("Forecaster(DLinear, 3 channels, 12 rows to 4, 1 ")
    assert not network.training
    pd.testing.assert_frame_equal(again.predict(wide_frame()), wide.predict(wide_frame()))
