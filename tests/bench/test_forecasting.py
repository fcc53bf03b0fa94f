"""`tsattn bench forecast`: the same forecasts first, then the clock."""

import json
from pathlib import Path
from typing import Any

import pytest

from tsattn.bench import forecasting
from tsattn.bench.gate import Check
from tsattn.bench.timing import Spread
from tsattn.cli import main

WORDS = ["bench", "forecast", "--threads", "1", "--series", "3", "--rounds", "1"]


def test_forecasts_of_neuralforecast_are_compared_with_ours(tmp_path: Path) -> None:
    pytest.importorskip("neuralforecast")
    chosen = forecasting.tasks(3, tmp_path, with_peers=True)
    checks = forecasting.forecast_checks(chosen)
    assert len(checks) == 4
    assert all(check.passed for check in checks), checks
    timings = forecasting.time_forecasts(chosen[:1], 1)
    assert [timing.name for timing in timings] == list(chosen[0].contenders)
    assert set(timings[0].speed_ups) == {"neuralforecast", "neuralforecast, one batch"}
    assert timings[0].per_second == pytest.approx(3 / timings[0].milliseconds.median * 1e3)


def test_command_times_one_window_and_loading_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "forecast.json"
    assert main([*WORDS, "--peers", "--json", str(file), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| load, beyond torch's import | tsattn |" in out
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert [timing["series"] for timing in stored["timings"]] == [3, 7, 7, 1]
    assert all(timing["milliseconds"]["lowest"] > 0 for timing in stored["timings"])


def test_nothing_is_timed_where_forecasts_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("timed in spite of a failed check")

    wrong = Check("3 series neuralforecast", passed=False, detail="off by 1")
    monkeypatch.setattr(forecasting, "forecast_checks", lambda chosen: [wrong])
    for name in ("time_forecasts", "time_one_window", "time_loading"):
        monkeypatch.setattr(forecasting, name, never)
    assert main([*WORDS, "--peers"]) == 1
    assert "nothing is timed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--series", "0"], "series must be at least 1, got 0"),
        (["--peers", "neuralforcast"], "did you mean 'neuralforecast'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, *words]) == 1
    assert message in capsys.readouterr().err


def test_table_has_a_ratio_for_each_peer() -> None:
    spread = Spread(2.0, 1.0, 3.0)
    timings = [
        forecasting.ForecastTiming("10 series", "tsattn", 10, spread, {"other": spread}),
        forecasting.ForecastTiming("10 series", "other", 10, spread, {}),
    ]
    titles, rows = forecasting.table(timings)
    assert titles[-1] == "x other"
    assert rows[0][3:] == ["5,000", "2 (1 to 3)"]
    assert rows[1][3:] == ["5,000", ""]
