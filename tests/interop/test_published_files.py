from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.interop.published_plain import PATCHTST, assert_same_tensors, draw_patchtst
from tsattn.errors import CheckpointError
from tsattn.interop.published import from_state_dict, read_state, to_state_dict


def _safetensors(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(state, folder / "checkpoint.safetensors")
    return folder / "checkpoint.safetensors"


def _torch(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def _old_torch(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


WRITERS = (_safetensors, _torch, _old_torch)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("individual", [0, 1])
def test_a_file_of_tensors_is_read_back(
    write: Callable[[dict[str, Tensor], Path], Path], individual: int, tmp_path: Path
) -> None:
    config = PATCHTST | {"individual": individual}
    state = to_state_dict(from_state_dict(draw_patchtst(config), config))
    assert_same_tensors(read_state(write(state, tmp_path)), state)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused_with_its_name_and_size(
    write: Callable[[dict[str, Tensor], Path], Path], kept: float, tmp_path: Path
) -> None:
    path = write(draw_patchtst(PATCHTST), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError) as error:
        read_state(path)
    assert str(path) in str(error.value)
    assert f"{int(kept * len(content))} bytes" in str(error.value)


@pytest.mark.parametrize("content", [b"hello, world", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\n"])
@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_state(tmp_path / name)


class _Trap:
    """Sets off when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(_Trap.path),)

    path = ""


@pytest.mark.parametrize("old", [False, True])
def test_pickled_code_is_refused_and_not_run(old: bool, tmp_path: Path) -> None:
    _Trap.path = str(tmp_path / "sprung")
    torch.save({"a": torch.zeros(1), "b": _Trap()}, tmp_path / "trap.pth",
               _use_new_zipfile_serialization=not old)  # fmt: skip
    with pytest.raises(CheckpointError, match=r"trap\.pth.*state_dict\(\) alone") as error:
        read_state(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
    assert "weights_only" not in str(error.value)  # no advice to open it unsafely


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, "state_dict, epoch"),
        ([torch.zeros(1)], "list"),
        (torch.zeros(1), "Tensor"),
        ({1: torch.zeros(1)}, "holds 1"),
    ],
)
def test_a_file_of_anything_but_tensors_by_name_is_refused(
    content: Any, named: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=named):
        read_state(tmp_path / "other.pth")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_state(tmp_path / "nowhere.pth")
