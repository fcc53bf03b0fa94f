from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tsattn.errors import ConfigError, MissingExtraError, TsattnError
from tsattn.ops import Impl, active_attention, availability
from tsattn.ops import impl as module
from tsattn.ops.impl import require_triton, taken_by_auto, triton_is_wanted

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine to describe: what is installed, and which GPU it has."""

    def describe(
        triton: bool = True,
        capability: tuple[int, int] | None = (9, 0),
        hip: str | None = None,
        interpreter: str | None = None,
    ) -> None:
        monkeypatch.setattr(module, "find_spec", lambda _: SimpleNamespace() if triton else None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        if interpreter is None:
            monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        else:
            monkeypatch.setenv("TRITON_INTERPRET", interpreter)

    return describe


def triton_listing() -> tuple[bool, str]:
    (listed,) = [a for a in availability() if a.name == Impl.TRITON]
    return listed.available, listed.reason


def test_auto_takes_triton_on_a_gpu_that_runs_it(machine: Any) -> None:
    machine()
    assert all(triton_is_wanted(CUDA, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert taken_by_auto(CUDA) is Impl.TRITON
    assert triton_listing()[0]


def test_auto_leaves_other_tensors_to_others(machine: Any) -> None:
    machine()
    assert not triton_is_wanted(CPU, torch.float32)
    assert not triton_is_wanted(CUDA, torch.float64)
    assert taken_by_auto(CPU) in (Impl.CPU, Impl.SDPA)
    machine(interpreter="1", capability=None)
    assert not triton_is_wanted(CPU, torch.float32)
    machine(interpreter="1")
    assert taken_by_auto(CUDA) is Impl.SDPA


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"triton": False}, "not installed: pip install 'tsattn[triton]'"),
        ({"capability": None}, "no CUDA device"),
        ({"capability": None, "interpreter": "0"}, "no CUDA device"),
        ({"capability": (7, 5)}, "8.0 or higher is needed, and this device has 7.5"),
        ({"hip": "6.4"}, "ROCm"),
    ],
    ids=str,
)
def test_where_triton_cannot_run_the_reason_is_given(
    machine: Any, described: dict[str, Any], reason: str
) -> None:
    machine(**described)
    available, listed = triton_listing()
    assert not available
    assert reason in listed
    assert taken_by_auto(CUDA) is Impl.SDPA
    with pytest.raises(TsattnError) as error:
        require_triton(CUDA, torch.float32)
    assert reason in str(error.value)
    assert isinstance(error.value, ConfigError if described.get("triton", True) else ImportError)


def test_named_triton_refuses_tensors_that_are_not_on_the_gpu(machine: Any) -> None:
    machine()
    with pytest.raises(ConfigError, match="tensors on cuda here, got cpu"):
        require_triton(CPU, torch.float32)


def test_named_triton_refuses_float64(machine: Any) -> None:
    machine()
    with pytest.raises(ConfigError, match=r"torch\.bfloat16, .*got torch\.float64"):
        require_triton(CUDA, torch.float64)


def test_the_interpreter_takes_cpu_tensors_and_no_others(machine: Any) -> None:
    machine(capability=None, interpreter="1")
    require_triton(CPU, torch.float32)
    assert "interpreter" in triton_listing()[1]
    with pytest.raises(ConfigError, match="tensors on cpu here, got cuda"):
        require_triton(CUDA, torch.float32)


@pytest.mark.skipif(
    find_spec("triton") is not None, reason="triton is installed: it is not missing here"
)
def test_without_triton_a_named_triton_raises_and_everything_else_runs() -> None:
    q = torch.randn(1, 2, 5, 4)
    with pytest.raises(MissingExtraError, match="not installed"):
        active_attention(q, q, q, impl="triton")
    output = active_attention(q, q, q, activation="tanh")
    assert isinstance(output, torch.Tensor)
    assert output.shape == q.shape
