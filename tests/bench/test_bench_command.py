"""`tsattn bench` as it is typed."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsattn.bench import command, machine
from tsattn.bench.gate import Check
from tsattn.cli import main
from tsattn.ops.impl import Availability

KERNELS = ["bench", "kernels", "--threads", "1", "--rounds", "1", "--impls", "sdpa"]
KERNELS += ["--shape", "2,2,8,4", "--activations", "tanh", "relu", "--memory", "false"]
AUTO = ["bench", "auto", "--threads", "1", "--rounds", "1", "--impls", "sdpa", "--quick"]
AUTO += ["--lengths", "16", "--widths", "64", "--dtypes", "float32"]
TRAIN = ["bench", "train", "--threads", "1", "--rounds", "1", "--only", "illness"]
TRAIN += ["--impls", "auto", "--memory", "false"]
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type words after ``tsattn``; exit status, output and errors."""

    def run(words: list[str], *more: object) -> tuple[int, str, str]:
        status = main([*words, *map(str, more)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one check fail, and nothing be timed."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("timed in spite of a failed check")

    failed = Check("attention sdpa tanh", passed=False, detail="off by 1, allowed 0")
    monkeypatch.setattr(command.gate, "parity_checks", lambda impls: [failed])
    for name in ("time_kernels", "time_training", "product_rates", "compare"):
        monkeypatch.setattr(command, name, never)


def test_kernels_are_checked_timed_and_written(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    status, out, _ = typed(KERNELS, "--json", file, "--markdown")
    assert status == 0
    assert "checks passed" in out
    assert "| 2x2x8x4 | float32 | tanh | forward | sdpa |" in out
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored["machine"]["threads"] == 1
    assert {"tsattn", "torch", "python"} <= stored["machine"]["versions"].keys()
    assert all(check["passed"] for check in stored["checks"])
    timings = stored["timings"]
    assert len(timings) == 2 * 3 * 3  # activations, phases, sdpa and the two peers
    for timing in timings:
        peers = set() if timing["name"].startswith("torch") else {"torch sdpa", "torch eager"}
        assert timing["speed_ups"].keys() == peers
        assert timing["milliseconds"]["lowest"] > 0
        assert timing["arithmetic_share"] > 0


def test_training_is_checked_timed_and_written(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    status, out, _ = typed(TRAIN, "--peers", "--json", file)
    assert status == 0, out
    timings = json.loads(file.read_text(encoding="utf-8"))["timings"]
    assert [(t["phase"], t["name"]) for t in timings] == [
        (phase, f"auto {precision}")
        for phase in ("step", "forward", "backward", "evaluation", "one window")
        for precision in ("float32", "bf16")
    ]
    assert all(t["share"] > 0 and t["peak_mib"] is None for t in timings)


def test_the_choice_of_auto_is_checked_compared_and_written(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "auto.json"
    status, out, _ = typed(AUTO, "--json", file, "--markdown")
    assert status == 0, out
    assert re.search(r"\d+ of 12 below the limit", out)
    assert "| grid | sdpa | float32 | tanh | causal | 16 | forward |" in out
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert len(stored["timings"]) == 2 * 2 * 3  # activations, causal and not, phases
    assert {t["setting"]["width"] for t in stored["timings"]} == {64}
    assert any("1x1x16x64 causal" in check["name"] for check in stored["checks"])


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    "words", [KERNELS, AUTO, [*TRAIN, "--peers"]], ids=["kernels", "auto", "train"]
)
def test_no_speed_up_is_shown_after_a_failed_check(
    words: list[str], typed: Typed, tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    status, out, _ = typed(words, "--json", file, "--markdown")
    assert status == 1
    assert "wrong: attention sdpa tanh: off by 1" in out
    assert "nothing is timed" in out
    assert "medians" not in out
    assert "|" not in out
    assert json.loads(file.read_text(encoding="utf-8"))["timings"] == []


def test_an_existing_file_is_not_replaced_unasked(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.json"
    file.write_text("precious", encoding="utf-8")
    status, out, err = typed(KERNELS, "--json", file)
    assert (status, file.read_text(encoding="utf-8")) == (1, "precious")
    assert "--overwrite" in err
    assert out == ""  # refused before anything ran
    monkeypatch.setattr(command, "_kernels", lambda options, console: ([], {}, []))
    assert typed(KERNELS, "--json", file, "--overwrite")[0] == 0
    assert "precious" not in file.read_text(encoding="utf-8")


def test_an_absent_peer_is_named_and_the_rest_is_timed(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "neuralforecast.models", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, out, _ = typed(TRAIN, "--precisions", "float32", "--json", tmp_path / "x.json")
    assert status == 0
    assert out.count("pip install 'tsattn[bench]'") == 2
    timings = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["timings"]
    assert {timing["name"] for timing in timings} == {"auto float32", "plain float32"}
    assert timings[0]["speed_ups"].keys() == {"plain float32"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "etth"], "unknown case 'etth'.*did you mean 'etth1'"),
        (["--impls", "fast"], "unknown impl 'fast'; expected auto, reference, sdpa"),
        (["--shape", "1,2,3"], "four positive numbers, got '1,2,3'"),
        (["--shape", "0,1,1,1"], "four positive numbers"),
        (["--shape", "a,1,1,1"], "four positive numbers"),
        (["--activations", "tan"], "unknown activation 'tan'.*did you mean 'tanh'"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_said(words: list[str], message: str, typed: Typed) -> None:
    status, _, err = typed([*KERNELS, *words])
    assert status == 1
    assert re.search(message, err), err


def test_an_implementation_that_is_missing_here_is_refused_with_its_reason(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        command, "availability", lambda: [Availability("sdpa", False, "no such luck")]
    )
    status, _, err = typed(KERNELS)
    assert status == 1
    assert "impl 'sdpa' cannot run here: no such luck" in err


@pytest.mark.parametrize(("load", "warned"), [(0.1, False), (7.5, True), (None, False)])
def test_a_busy_machine_is_warned_about(load: float | None, warned: bool) -> None:
    warning = machine.busy_warning(load)
    assert (warning is not None) == warned
    if warning:
        assert "load average 7.5" in warning
