"""`tsattn doctor --build`, with the build itself replaced."""

from pathlib import Path

import pytest

from tsattn.cli import doctor as module
from tsattn.cli.main import main
from tsattn.errors import KernelBuildError


def test_doctor_builds_the_kernels_only_where_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module, "build_all", lambda: calls.append("built") or Path("there.so"))
    monkeypatch.setattr(module, "print_report", lambda _: 0)

    assert main(["doctor"]) == 0
    assert calls == []
    assert main(["doctor", "--build"]) == 0
    assert calls == ["built"]
    assert "there.so" in capsys.readouterr().out


def test_a_build_that_fails_is_printed_with_the_report_and_in_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Path:
        raise KernelBuildError("no C++ compiler [here]")

    monkeypatch.setattr(module, "build_all", fail)
    monkeypatch.setattr(module, "print_report", lambda console: console.print("the report") or 0)

    assert main(["doctor", "--build"]) == 1
    printed = capsys.readouterr().out
    assert "no C++ compiler [here]" in printed
    assert "the report" in printed
