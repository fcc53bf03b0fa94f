"""Exports from strangers: cut short, changed, contradicting themselves, too large to be true."""

import json
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.test_checkpoint import Harm
from tsattn.errors import CheckpointError
from tsattn.models import DLinear
from tsattn.training import load_network
from tsattn.training.artifact import read_artifact, read_record, write_artifact
from tsattn.training.checkpoint import FORMAT, describe_network
from tsattn.training.tensor_file import Digest, read_tensors

NETWORK = DLinear(2, 6, 3, kernel_size=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    record = {
        "format": FORMAT,
        "network": describe_network(NETWORK),
        "data": {"scaler_mean": torch.tensor([[0.1, 1e300]], dtype=torch.float64), "channels": []},
        "training": {"nested": [{"tensor": torch.tensor([torch.inf])}, (1, 2)]},
    }
    write_artifact(folder, record, NETWORK.state_dict(), {"result": None})
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the record as somebody would who knows about the checksum."""
    content = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    change(content)
    rest = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    content["checksum"] = sha256(text.encode()).hexdigest()
    (folder / "record.json").write_text(json.dumps(content), encoding="utf-8")


def test_whatever_a_record_holds_comes_back(folder: Path) -> None:
    record, weights = read_artifact(folder)
    assert torch.equal(
        record["data"]["scaler_mean"], torch.tensor([[0.1, 1e300]], dtype=torch.float64)
    )
    assert record["training"]["nested"][0]["tensor"].isinf().all()
    assert record["training"]["nested"][1] == [1, 2]
    assert weights.keys() == NETWORK.state_dict().keys()
    assert isinstance(load_network(folder), DLinear)
    rewrite(folder, lambda content: None)
    read_artifact(folder)  # so that the refusals below mean something


@pytest.mark.parametrize("name", ["record.json", "model.safetensors"])
def test_file_cut_short_anywhere_or_missing_is_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 2):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut short|has \d+ bytes, its record says"):
            load_network(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"without record\.json|cannot be read"):
        load_network(folder)


@pytest.mark.parametrize("name", ["record.json", "model.safetensors", "model.onnx"])
def test_every_changed_byte_is_noticed(folder: Path, name: str, tmp_path: Path) -> None:
    (folder / "model.onnx").write_bytes(b"a graph")
    record, weights = read_artifact(folder)
    write_artifact(folder, record, weights, {})
    whole = np.frombuffer((folder / name).read_bytes(), dtype=np.uint8)
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole) - 1, 60):
        changed = whole.copy()
        changed[place] ^= random.integers(1, 256)
        (folder / name).write_bytes(changed.tobytes())
        same = name == "record.json" and _reads_the_same(changed.tobytes(), whole.tobytes())
        if not same:
            with pytest.raises(CheckpointError):
                load_network(folder)


def _reads_the_same(first: bytes, second: bytes) -> bool:
    """Whether two texts are the same JSON: another blank changes nothing."""
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


def test_graph_may_be_left_behind_and_the_card_may_be_edited(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / "README.md").write_text("a card", encoding="utf-8")
    record, weights = read_artifact(folder)
    write_artifact(folder, record, weights, {})
    (folder / "model.onnx").unlink()
    (folder / "README.md").write_text("a better card", encoding="utf-8")
    assert load_network(folder).channels == 2


def test_name_of_an_unfinished_folder_is_refused(folder: Path) -> None:
    unfinished = folder.with_name(".model.unfinished-7")
    folder.rename(unfinished)
    with pytest.raises(CheckpointError, match="interrupted; export again"):
        load_network(unfinished)


def _of(*path: str) -> Callable[[dict[str, Any]], tuple[Any, str]]:
    def place(content: dict[str, Any]) -> tuple[Any, str]:
        for part in path[:-1]:
            content = content[part]
        return content, path[-1]

    return place


def _set(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        parent, last = _of(*path)(content)
        parent[last] = value

    return change


WEIGHT = "network.seasonal.weight"
CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a newer format": (_set(9, "format"), "has format 9, this version reads up to 1; upgrade"),
    "a newer record": (_set(9, "record", "format"), "has format 9"),
    "a record of no format": (_set(None, "record", "format"), "has format None"),
    "no files": (_set({}, "files"), "no record of a network"),
    "files as text": (_set("all", "files"), "no record of a network"),
    "a file elsewhere": (
        _set({"size": 1, "sha256": "0"}, "files", "../../etc/passwd"), "names the files"
    ),
    "no checksum of the weights": (_set({}, "files", "model.safetensors"), "no record"),
    "another checksum": (_set("0" * 64, "files", "model.safetensors", "sha256"), "was changed"),
    "a petabyte": (_set(10**15, "files", "model.safetensors", "size"), "its record says 10000"),
    "no tensors": (_set([], "tensors"), "no record of a network"),
    "a tensor too large": (
        lambda c: next(iter(c["tensors"].values())).update(shape=[10**9, 10**9, 10**9]),
        "larger than the file",
    ),
    "a size below zero": (
        lambda c: next(iter(c["tensors"].values())).update(shape=[-1, -5]), "larger than the file"
    ),
    "a size that is no number": (
        lambda c: next(iter(c["tensors"].values())).update(shape=["x"]), "no record of a network"
    ),
    "another size": (
        lambda c: next(iter(c["tensors"].values())).update(shape=[1]), "differ from what"
    ),
    "another type": (
        lambda c: next(iter(c["tensors"].values())).update(dtype="float16"), "differ from what"
    ),
    "a type of objects": (
        lambda c: next(iter(c["tensors"].values())).update(dtype="object"), "no record of a network"
    ),
    "a tensor less": (lambda c: c["tensors"].popitem(), "differ from what"),
    "no record": (_set(None, "record"), "no record of a network"),
    "no network": (_set({}, "record", "network"), "describes no network"),
    "a network of a stranger": (
        _set("os.system", "record", "network", "class"), "'os.system' is not one of"
    ),
    "a network too large": (
        _set(10**9, "record", "network", "arguments", "horizon"), "more than the weights allow"
    ),
    "another network": (
        _set(4, "record", "network", "arguments", "horizon"), "weights do not fit"
    ),
    "a reference to nothing": (
        _set({"tensor in model.safetensors": "x"}, "record", "data", "x"), "no record of a network"
    ),
}  # fmt: skip


@pytest.mark.unchecked
@pytest.mark.parametrize("case", CASES)
def test_record_that_cannot_be_is_refused_with_the_reason(folder: Path, case: str) -> None:
    change, message = CASES[case]
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_network(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"x"', "{}", '{"checksum": 1, "format": 1}', "[" * 100_000,
     '{"checksum": NaN, "format": 1}', "\x00", "1" * 5000],
    ids=range(12),
)  # fmt: skip
def test_text_that_is_no_record_is_refused(folder: Path, text: str) -> None:
    (folder / "record.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"damaged or cut short|was changed"):
        read_record(folder)


def test_pickles_are_not_opened(folder: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for name in ("record.json", "model.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Harm(touched)))
        with pytest.raises(CheckpointError):
            load_network(folder)
        torch.save(Harm(touched), folder / name)
        with pytest.raises(CheckpointError):
            load_network(folder)
        (folder / name).write_bytes(kept)
    assert not touched.exists()


def test_weights_of_another_export_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        load_network(folder)


def test_record_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    for value, message in (
        (float("nan"), "record.training.x is nan"),
        (object(), "record.training.x is a object"),
        ({1: 2}, "record.training.x has keys"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write_artifact(tmp_path, {"training": {"x": value}}, {}, {})
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize("header", [b"", b"{", b'{"a": 3}', b'{"a":{"dtype":"F32","shape":[9],'
                                    b'"data_offsets":[0,4]}}', b"\xff" * 30])  # fmt: skip
def test_tensor_file_with_a_strange_header_is_refused(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00" * 4)
    with pytest.raises(CheckpointError, match=r"\(\d+ bytes\) cannot be read"):
        read_tensors(file)
    file.write_bytes((1 << 62).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensors(file, Digest.of(file.read_bytes()))
