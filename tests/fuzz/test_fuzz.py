"""A small, fixed part of what ``python -m tests.fuzz`` does, and its judgement itself."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from tests.fuzz.__main__ import fuzz
from tests.fuzz.running import _call, _judge, prepare
from tsattn.cli import forecast as command

pytestmark = pytest.mark.unchecked  # as users run it


def test_malformed_inputs_end_in_a_forecast_or_a_message(tmp_path: Path) -> None:
    outcomes = fuzz(list(range(60)), 7, tmp_path, quiet=True)
    failed = [f"input {n}: {one}" for n, one in enumerate(outcomes) if one.failed]
    assert failed == []
    kinds = {one.kind for one in outcomes}
    assert {"forecast", "refused"} <= kinds


def judged(tmp_path: Path, *more: str) -> str:
    (start, *_) = prepare(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "data.csv").write_bytes(start.table)
    out = home / "out.csv"
    words = ["forecast", "--ckpt", str(start.checkpoint), "--data", str(home / "data.csv")]
    words += ["--out", str(out), *more]
    return _judge(words, "", home, out, kept=False).kind


def test_a_sound_input_is_a_forecast(tmp_path: Path) -> None:
    assert judged(tmp_path) == "forecast"


def test_an_unknown_option_is_a_misuse(tmp_path: Path) -> None:
    assert judged(tmp_path, "--colour", "red") == "misused"


@pytest.mark.parametrize("error", [ValueError("numpy says no"), KeyError(3), OSError("disk")])
def test_an_error_of_somebody_elses_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "_write", fail)
    assert judged(tmp_path) == "crash"


@pytest.mark.parametrize(
    "text", ["date,a\n2020-01-01,\n" * 4, "date,a\n1,inf\n2,1\n3,1\n4,1\n", ""]
)
def test_an_output_that_is_none_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def write(given: Namespace, *_: object) -> None:
        if text:
            given.out.write_text(text)

    monkeypatch.setattr(command, "_write", write)
    assert judged(tmp_path) == "bad output"


def test_a_changed_input_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(given: Namespace, *_: object) -> None:
        given.out.with_name("data.csv").write_text("gone")

    monkeypatch.setattr(command, "_write", spoil)
    assert judged(tmp_path) == "replaced"


def test_a_hang_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.running.LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(command, "_write", spin)
    assert judged(tmp_path) == "hang"


def test_errors_come_out_as_they_are() -> None:
    status, error = _call(["forecast", "--ckpt", "nowhere", "--data", "x", "--out", "y"])
    assert status is None
    assert "no checkpoint at nowhere" in str(error)
