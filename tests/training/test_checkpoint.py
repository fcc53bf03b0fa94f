"""Checkpoints: what they bring back, and that nothing harmful or broken is taken for one."""

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.tiny import CONTEXT, HORIZON, Finished
from tsattn.cli import main
from tsattn.data import load_panel, prepare
from tsattn.errors import CheckpointError, CheckpointNotSavedError
from tsattn.models import DLinear, PatchTST
from tsattn.training import load_network
from tsattn.training.checkpoint import (
    FORMAT,
    RECORD,
    build_network,
    describe_network,
    read_checkpoint,
)
from tsattn.training.saving import SafeCheckpointIO

WHOLE: dict[str, Any] = {
    RECORD: {"format": FORMAT, "network": describe_network(DLinear(1, 4, 2, kernel_size=3))},
    "state_dict": {f"network.{k}": v for k, v in DLinear(1, 4, 2).state_dict().items()},
    "epoch": 0,
    "pytorch-lightning_version": "2.6.6",
}


class Harm:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def with_record(**changes: Any) -> dict[str, Any]:
    return WHOLE | {RECORD: WHOLE[RECORD] | changes}


def test_network_of_a_checkpoint_gives_the_stored_forecasts(finished: Finished) -> None:
    network = load_network(finished.folder.best)
    assert not network.training
    prepared = prepare(load_panel("illness"), context=CONTEXT, horizon=HORIZON)
    with torch.inference_mode():
        forecasts = network(prepared.test[:].past_BTC).mean
    with np.load(finished.predictions) as stored:
        np.testing.assert_allclose(forecasts.numpy(), stored["prediction"], rtol=1e-4, atol=1e-5)


def test_minimal_checkpoint_is_taken_so_that_the_refusals_below_mean_something(
    tmp_path: Path,
) -> None:
    torch.save(WHOLE, tmp_path / "good.ckpt")
    assert isinstance(load_network(tmp_path / "good.ckpt"), DLinear)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "was not written by tsattn"),
        ({"state_dict": {}}, "published code are read by tsattn.interop.published"),
        ({RECORD: {}}, "not a whole checkpoint"),
        (with_record(network=3), "not a whole checkpoint"),
        (with_record(network={"class": "PatchTST"}), "not a whole checkpoint"),
        (with_record(format="new"), "not a whole checkpoint"),
        (with_record(format=FORMAT + 1), "upgrade tsattn"),
        ({k: v for k, v in WHOLE.items() if k != "state_dict"}, "not a whole checkpoint"),
        ({k: v for k, v in WHOLE.items() if k != "epoch"}, "not a whole checkpoint"),
        (WHOLE | {"state_dict": {}}, "weights do not fit"),
        (
            with_record(network={"class": "os.system", "arguments": {}, "not_stored": []}),
            "'os.system' is not one of PatchTST",
        ),
        (
            with_record(network=WHOLE[RECORD]["network"] | {"arguments": {"foo": 1}}),
            "DLinear cannot be built.*(foo|channels)",
        ),
    ],
)
def test_foreign_or_incomplete_checkpoint_is_refused_in_words(
    tmp_path: Path, content: Any, message: str
) -> None:
    file = tmp_path / "strange.ckpt"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=message):
        load_network(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"date,a,b\n2020-01-01,1,2\n", b'{"state_dict": {}}', b"model:\n  - 1\n", b"\x80"],
    ids=["empty", "newline", "csv", "json", "yaml", "byte"],
)
def test_file_that_is_no_checkpoint_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.ckpt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.ckpt \(\d+ bytes\) is not a checkpoint"):
        read_checkpoint(file)


def test_every_shipped_kind_of_file_is_refused(finished: Finished, golden: Path) -> None:
    others = [finished.folder.config, finished.folder.result, finished.predictions]
    for file in (*others, golden / "patchtst_illness.safetensors"):
        with pytest.raises(CheckpointError, match=r"not a checkpoint|was not written by tsattn"):
            read_checkpoint(file)


def test_checkpoint_cut_short_anywhere_is_refused(finished: Finished, tmp_path: Path) -> None:
    whole = finished.folder.best.read_bytes()
    file = tmp_path / "cut.ckpt"
    for length in (1, 4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"{length} bytes"):
            read_checkpoint(file)


def test_damaged_checkpoint_is_refused_in_words_if_it_is_noticed_at_all(
    finished: Finished, tmp_path: Path
) -> None:
    whole = np.frombuffer(finished.folder.best.read_bytes(), dtype=np.uint8)
    random, file = np.random.default_rng(0), tmp_path / "damaged.ckpt"
    refused = 0
    for _ in range(40):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 20)] ^= 255
        file.write_bytes(damaged.tobytes())
        try:
            load_network(file)
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_message_does_not_advise_to_load_the_file_unsafely(tmp_path: Path) -> None:
    file = tmp_path / "module.ckpt"
    torch.save(torch.nn.Linear(1, 1), file)
    with pytest.raises(CheckpointError, match="more than plain data") as caught:
        read_checkpoint(file)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("writer", ["torch", "pickle", "inside"])
def test_nothing_in_a_checkpoint_is_executed(
    finished: Finished, tmp_path: Path, writer: str
) -> None:
    file, trace = tmp_path / "harm.ckpt", tmp_path / "executed"
    if writer == "torch":
        torch.save(Harm(trace), file)
    elif writer == "pickle":
        file.write_bytes(pickle.dumps(Harm(trace)))
    else:
        torch.save(WHOLE | {"callbacks": {"x": Harm(trace)}}, file)
    with pytest.raises(CheckpointError, match="more than plain data"):
        read_checkpoint(file)
    config = str(finished.folder.config)
    for command in ("test", "validate", "fit"):
        words = [command, "--config", config, "--ckpt_path", str(file)]
        assert main([*words, "--run_dir", str(tmp_path / "run")]) == 1
    assert not trace.exists()
    assert not (tmp_path / "run").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert trace.exists()  # so the file would have done its harm


def test_callable_activation_is_named_as_what_a_checkpoint_cannot_store() -> None:
    description = describe_network(PatchTST(1, 16, 4, value_activation=torch.sin))
    assert description["not_stored"] == ["value_activation"]
    with pytest.raises(CheckpointError, match=r"value_activation.*load_network\(path, network\)"):
        build_network(description)


def test_described_network_is_built_again() -> None:
    network = PatchTST(
        3, 30, 5, patch_length=7, stride=4, d_model=8, num_heads=2, value_activation="silu"
    )
    again = build_network(describe_network(network))
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    assert again.init_args == network.init_args


@pytest.fixture
def full() -> Path:
    """A device on which every write fails."""
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("this system has no /dev/full")
    return device


def test_failing_write_leaves_the_previous_checkpoint_and_no_rest(
    tmp_path: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.ckpt"
    saver = SafeCheckpointIO()
    saver.save_checkpoint(WHOLE, file)
    before = file.read_bytes()
    opened: Callable[..., Any] = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: opened(full, *mode))
    with pytest.raises(CheckpointNotSavedError, match=r"No space left.*previous one is kept"):
        saver.save_checkpoint(WHOLE | {"epoch": 1}, file)
    with pytest.raises(CheckpointNotSavedError, match="there was none before"):
        saver.save_checkpoint(WHOLE, tmp_path / "first.ckpt")
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
