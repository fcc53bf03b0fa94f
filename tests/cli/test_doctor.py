"""The report on what this machine can run."""

import os
import platform
import re
import sys
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from rich.console import Console

from tsattn import __version__
from tsattn.cli import doctor as module
from tsattn.cli.doctor import EXTRAS, print_report
from tsattn.ops.impl import Availability

Report = Callable[[], tuple[int, str]]


@pytest.fixture
def report() -> Report:
    """Run the doctor; its exit status, and what it printed on wide paper."""

    def run() -> tuple[int, str]:
        console = Console(width=240, color_system=None, record=True, file=StringIO(), markup=False)
        return print_report(console), console.export_text()

    return run


def line(text: str, label: str) -> str:
    found = re.search(rf"^ *{re.escape(label)} +(.*)$", text, flags=re.MULTILINE)
    assert found, f"no line {label!r} in:\n{text}"
    return found[1].strip()


def test_a_complete_installation_is_ready(report: Report) -> None:
    status, text = report()

    assert status == 0
    assert "ready" in text
    assert "could not be read" not in text


def test_the_report_names_the_versions_that_run(report: Report) -> None:
    _, text = report()

    assert line(text, "tsattn").startswith(__version__)
    assert line(text, "torch") == torch.__version__
    assert line(text, "python").startswith(platform.python_version())


def test_the_report_names_every_implementation_and_why_one_is_missing(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [
        Availability("reference", True, "the equation in plain torch"),
        Availability("fused", False, "no C++ compiler; install one"),
    ]
    monkeypatch.setattr(module, "availability", lambda: listed)

    status, text = report()

    assert status == 0
    assert line(text, "reference") == "yes: the equation in plain torch"
    assert line(text, "fused") == "no: no C++ compiler; install one"


def test_a_machine_without_any_implementation_is_a_problem(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Availability("reference", False, "torch is broken")
    monkeypatch.setattr(module, "availability", lambda: [missing])

    status, text = report()

    assert status == 1
    assert "problem: no implementation of active attention can run" in text


def test_a_missing_extra_comes_with_the_command_that_installs_it(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "plotly" else here(name))

    status, text = report()

    assert status == 0
    assert line(text, "plots") == "plotly missing: pip install 'tsattn[plots]'"


def test_the_extras_of_the_report_are_those_of_the_package(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {Requirement(text).name for text in texts}
        for extra, texts in project["optional-dependencies"].items()
        if extra not in ("dev", "all")
    }
    assert {extra: set(modules) for extra, modules in EXTRAS.items()} == declared


def test_the_report_names_the_embedded_datasets(report: Report) -> None:
    _, text = report()

    found = line(text, "found")
    assert "ETTh1" in found
    assert "illness" in found
    assert "traffic" in line(text, "not found")


def test_the_report_names_the_cache_folder(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TSATTN_CACHE", str(tmp_path / "elsewhere"))

    _, text = report()

    assert line(text, "cache").startswith(str(tmp_path / "elsewhere"))


def test_a_section_that_fails_does_not_end_the_report(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[Availability]:
        raise OSError("libgomp.so.1 is missing")

    monkeypatch.setattr(module, "availability", broken)

    status, text = report()

    assert status == 1
    assert "could not be read: OSError: libgomp.so.1 is missing" in text
    assert "ETTh1" in line(text, "found")


def pretend(monkeypatch: pytest.MonkeyPatch, system: str, machine: str, features: dict) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    if system != "Linux":
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if system == "Windows":
        monkeypatch.delattr(os, "sysconf", raising=False)


@pytest.mark.parametrize(
    ("system", "machine", "features", "bfloat16"),
    [
        ("Linux", "x86_64", {"cpu_name": "Some x86", "amx_bf16": True}, "in hardware (amx_bf16)"),
        ("Linux", "aarch64", {"cpu_name": "Unknown", "bf16": True}, "in hardware (bf16)"),
        ("Darwin", "arm64", {"cpu_name": "Apple M1", "bf16": False}, "no hardware support known"),
        ("Windows", "AMD64", {"cpu_name": "Some x86"}, "no hardware support known"),
        ("FreeBSD", "riscv64", {}, "no hardware support known"),
    ],
)
def test_the_report_reads_well_on_other_machines(
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    features: dict,
    bfloat16: str,
) -> None:
    pretend(monkeypatch, system, machine, features)

    status, text = report()

    assert status == 0
    assert "could not be read" not in text
    name = features.get("cpu_name", "Unknown")
    assert line(text, "processor") == f"{machine if name == 'Unknown' else name} ({machine})"
    assert line(text, "bfloat16").startswith(bfloat16)
    assert line(text, "memory").endswith("GiB" if system != "Windows" else "unknown on this system")


def test_the_report_says_when_there_is_no_compiler(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    _, text = report()

    assert line(text, "C++ compiler").startswith("none found")


def test_the_report_names_the_compiler_that_the_environment_chooses(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -flag")

    _, text = report()

    assert line(text, "C++ compiler") == sys.executable


def test_the_report_says_why_there_is_no_cuda(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    _, text = report()

    assert line(text, "cuda") == "none: torch is built for 13.0, and no device or driver answers"
