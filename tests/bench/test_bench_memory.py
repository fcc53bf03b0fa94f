"""Peak memory: what is measured, what is extrapolated, and how it is shown."""

import json
from pathlib import Path

import pytest

from tsattn.bench import command, footprint
from tsattn.bench.kernel_memory import kernel_memory
from tsattn.bench.kernels import BACKWARD, BOTH, FORWARD, Case
from tsattn.bench.memory import extrapolated, measure_training, table
from tsattn.bench.recipes import LARGE_RECIPES, RECIPES, Recipe
from tsattn.cli import main
from tsattn.memory import available_mib, peak_resident_mib

WEATHER, ELECTRICITY, TRAFFIC = LARGE_RECIPES
NAMES = ["auto float32", "neuralforecast float32"]


def pretended(recipe: Recipe, name: str) -> float:
    """A process of 400 MiB, and 100 a window; twice that for peers, half with recomputation."""
    factor = 2.0 if name.startswith("neuralforecast") else 0.5 if recipe.recompute else 1.0
    return 400 + 100 * factor * recipe.batch


def test_large_recipes_are_whole_batches_and_two_of_them_recompute() -> None:
    assert [(r.name, r.batch, r.channels) for r in LARGE_RECIPES] == [
        ("weather", 128, 21),
        ("electricity", 32, 321),
        ("traffic", 24, 862),
    ]
    recomputing = [bool(r.arguments.get("recompute")) for r in LARGE_RECIPES]
    assert recomputing == [False, True, True]


def test_what_fits_is_measured_and_the_rest_extrapolated() -> None:
    uses = list(measure_training(TRAFFIC, NAMES, pretended, room_mib=4000))
    assert [(use.name, use.recompute, use.peak_mib) for use in uses] == [
        ("auto float32", True, 1600),
        ("auto float32", False, 2800),
        ("neuralforecast float32", False, 5200),
    ]
    assert [use.extrapolated_from for use in uses] == [(), (), ((2, 800.0), (4, 1200.0))]
    titles, rows = table(uses)
    assert titles[-2:] == ["peak MiB", "how"]
    assert rows[0][1:] == ["24 x 862", "auto float32", "recomputed", "1600", "measured"]
    assert rows[2][-1] == "extrapolated from 800 at 2, 1200 at 4 windows"


def test_a_batch_that_fails_after_all_is_extrapolated_and_one_that_never_runs_left_out() -> None:
    def fails(recipe: Recipe, name: str) -> float | None:
        return None if recipe.batch > 10 or recipe.recompute else pretended(recipe, name)

    (use,) = measure_training(TRAFFIC, NAMES[:1], fails, room_mib=1e9)
    assert (use.recompute, use.peak_mib, len(use.extrapolated_from)) == (False, 2800, 2)


def test_a_line_needs_two_batches() -> None:
    assert extrapolated([(2, 10.0), (4, 14.0)], 24) == 54
    with pytest.raises(ValueError, match="got 2 twice"):
        extrapolated([(2, 10.0), (2, 10.0)], 24)


def test_the_process_trains_the_recipe_it_is_told() -> None:
    if peak_resident_mib() is None:
        pytest.skip("nobody tells memory here")
    illness = RECIPES[2]
    assert footprint.measure_memory(illness.with_batch(1), "auto float32", threads=1, steps=1)
    unknown = Recipe("illness", "patchtst/nowhere.yaml", 7)
    assert footprint.measure_memory(unknown, "auto float32", threads=1) is None


def test_available_memory_is_told_where_it_is_known() -> None:
    if Path("/proc/meminfo").is_file():
        assert (available_mib() or 0) > 0


def test_the_command_checks_measures_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(recipe: Recipe, name: str, threads: int, steps: int) -> tuple[float, float]:
        return pretended(recipe, name), 0.0

    monkeypatch.setattr(command, "measure_memory", measure)
    words = ["bench", "memory", "--threads", "1", "--only", "weather", "--precisions", "float32"]
    file = tmp_path / "memory.json"
    assert main([*words, "--peers", "--markdown", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "checks passed" in out
    assert "| weather | 128 x 21 | auto float32 | recomputed | 6800 | " in out
    timings = json.loads(file.read_text(encoding="utf-8"))["timings"]
    assert [timing["recompute"] for timing in timings] == [True, False]


def test_a_call_adds_its_output_and_the_scores_where_they_are_made() -> None:
    memory = kernel_memory(threads=1)
    case = Case("many keys", batch=4, heads=4, length=512, width=8)
    scores = 4 * case.batch * case.heads * case.length**2 / 2**20  # 16 MiB
    given = (case, "float32", "tanh")
    kept = memory(*given, "reference", BOTH)
    alone = memory(*given, "reference", FORWARD)
    if kept is None or alone is None:
        pytest.skip("nobody tells here how much memory a process has needed")
    assert alone > scores
    assert kept > alone
    torch_sdpa = memory(*given, "torch sdpa", FORWARD)
    assert torch_sdpa is not None
    assert torch_sdpa < scores
    assert memory(*given, "reference", BACKWARD) is None


def test_an_operation_that_fails_has_no_memory_figure() -> None:
    case = Case("no width", batch=1, heads=1, length=4, width=0)
    assert kernel_memory(threads=1)(case, "float32", "unheard of", "reference", FORWARD) is None
