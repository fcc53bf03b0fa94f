"""`tsattn compare`: numbers against the stored forecasts, and what cannot be compared."""

import csv
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.bench.trained import SEEDS, Trained
from tests.training.tiny import RECIPE, fit
from tsattn.bench.compare.differences import Pairing, compare_sides
from tsattn.bench.compare.errors import ErrorsOfRun, errors_of
from tsattn.bench.compare.sides import Scored
from tsattn.bench.opened import open_kept, open_run
from tsattn.cli import main
from tsattn.training.command import run


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["compare", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sets(trained: Trained) -> list[str]:
    return [
        f"{name}=" + ",".join(str(trained.run(name, seed)) for seed in SEEDS)
        for name in ("identity", "tanh")
    ]


def test_errors_are_numpys_on_the_stored_forecasts(trained: Trained, tmp_path: Path) -> None:
    folder, file = trained.run("tanh", 7), tmp_path / "stored.npz"
    run(["test", "--config", str(folder / "config.yaml"), "--ckpt_path", "best",
         "--save_predictions", str(file)])  # fmt: skip
    with np.load(file) as stored:
        error_WHC = stored["prediction"].astype(np.float64) - stored["target"]
    found = errors_of(open_run(folder))
    for metric, values in {"mse": error_WHC**2, "mae": abs(error_WHC)}.items():
        for parts, means in ((found.channels, values.mean(1)), (found.steps, values.mean(2))):
            np.testing.assert_allclose(parts.means(metric), means, rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(parts.scores(metric), means.mean(0), rtol=1e-5)
        score = trained.scores["tanh", 7]["test"][metric]
        assert found.score(metric) == pytest.approx(score, rel=1e-6)
        assert found.by_window(metric).mean() == pytest.approx(score, rel=1e-6)


def test_kept_checkpoint_and_run_folder_have_the_same_errors(trained: Trained) -> None:
    (file,) = (trained.results / "checkpoints" / "patchtst").glob("*tanh-8-*")
    kept, folder = open_kept(file, "32-true"), open_run(trained.run("tanh", 8))
    assert kept.seed == folder.seed == 8
    np.testing.assert_array_equal(
        errors_of(kept).by_window("mse"), errors_of(folder).by_window("mse")
    )


def test_sets_are_paired_by_seed_with_students_t(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = compared(capsys, *sets(trained), "--out", tmp_path / "out")
    assert status == 0
    assert "paired over 2 seeds, Student's t" in out
    scores = {name: [trained.scores[name, s]["test"]["mse"] for s in SEEDS]
              for name in ("identity", "tanh")}  # fmt: skip
    test = stats.ttest_rel(scores["tanh"], scores["identity"])
    interval = test.confidence_interval(0.95)
    (total,) = [line for line in read(tmp_path / "out" / "differences.csv")
                if (line["over"], line["score"]) == ("all", "mse")]  # fmt: skip
    assert (total["side"], total["reference"], total["pairs"]) == ("tanh", "identity", "2")
    assert float(total["p"]) == pytest.approx(test.pvalue, rel=1e-4)
    assert float(total["low"]) == pytest.approx(interval.low, rel=1e-4)
    assert float(total["high"]) == pytest.approx(interval.high, rel=1e-4)


def test_means_are_of_the_seeds_that_all_sides_have(trained: Trained) -> None:
    found: dict[int | None, ErrorsOfRun] = {
        seed: errors_of(open_run(trained.run("tanh", seed))) for seed in SEEDS
    }
    many = Scored("many", {**found, 9: found[7]})
    few = Scored("few", dict(found))
    pairing = Pairing("seeds", SEEDS, None, 0, ())
    assert pairing.runs_of(many) == pairing.runs_of(few) == list(found.values())
    (difference,) = compare_sides([many, few], pairing)
    assert difference.total["mse"].mean == 0
    windows = Pairing("windows", (), None, 2, ())
    assert windows.runs_of(few) == list(found.values())


def test_single_runs_are_paired_by_window_and_the_files_are_tidy(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [trained.run(name, 7) for name in ("identity", "tanh")]
    status, out, _ = compared(capsys, *pair, "--out", tmp_path / "out")
    assert status == 0
    assert "paired over 182 windows, 7 blocks of 24 or more, Student's t" in out
    assert "one run each" in out
    windows = read(tmp_path / "out" / "windows.csv")
    assert len(windows) == 2 * 182
    assert (windows[0]["window"], windows[0]["seed"]) == ("0", "7")
    assert windows[0]["first_target"] == "2016-10-25T00:00:00"
    assert len(read(tmp_path / "out" / "channels.csv")) == 2 * 7
    steps = read(tmp_path / "out" / "steps.csv")
    assert [line["step"] for line in steps[:12]] == [str(step) for step in range(1, 13)]
    differences = read(tmp_path / "out" / "differences.csv")
    assert len(differences) == 2 * (1 + 7 + 12)
    mean = {over: np.mean([float(line["difference"]) for line in differences
                           if line["over"] == over and line["score"] == "mse"])
            for over in ("all", "channel", "step")}  # fmt: skip
    assert mean["channel"] == pytest.approx(mean["all"], rel=1e-9)
    assert mean["step"] == pytest.approx(mean["all"], rel=1e-9)
    scores = [trained.scores[name, 7]["test"]["mse"] for name in ("identity", "tanh")]
    assert mean["all"] == pytest.approx(scores[1] - scores[0], rel=1e-4)


def test_a_run_compared_with_itself_shows_no_difference(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.run("tanh", 7)
    status, out, _ = compared(capsys, f"a={folder}", f"b={folder}")
    assert status == 0
    assert "b and a: undecided, no difference beyond chance" in out
    assert "0.0000 [0.0000, 0.0000]" in out


def test_few_blocks_show_the_difference_and_no_verdict(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [f"{name}={trained.run(name, 7)}" for name in ("identity", "tanh")]
    status, out, _ = compared(capsys, *pair, "--block", 31, "--out", tmp_path / "out")
    assert status == 0
    assert "paired over 182 windows, 5 blocks of 31 or more, too few for a test" in out
    assert "undecided, the 182 windows hold only 5 independent stretches of time" in out
    assert "note: fewer than 6 blocks have no interval and no p" in out
    assert "error than" not in out
    scores = [trained.scores[name, 7]["test"]["mse"] for name in ("identity", "tanh")]
    assert f"{scores[1] - scores[0]:+.4f} │ " in out.replace("−", "-")
    lines = read(tmp_path / "out" / "differences.csv")
    assert {line["low"] + line["high"] + line["p"] for line in lines} == {""}
    assert all(line["difference"] for line in lines)
    assert (tmp_path / "out" / "comparison.png").exists()


def test_blocks_shorter_than_two_horizons_are_noted(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [trained.run(name, 7) for name in ("identity", "tanh")]
    _, out, _ = compared(capsys, *pair, "--block", 12)
    assert "blocks of 12 are shorter than two horizons (24)" in out
    assert "two horizons" not in compared(capsys, *pair)[1]


def test_rows_of_results_are_sides_with_all_their_seeds(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["illness/identity", "t=illness/tanh", "--results", trained.results]
    status, out, _ = compared(capsys, *words)
    assert status == 0
    assert "paired over 2 seeds" in out
    mean = np.mean([trained.scores["tanh", seed]["test"]["mse"] for seed in SEEDS])
    assert re.search(rf"│ t +│ +2 │ {mean:.4f} │", out)


def test_picture_is_drawn_and_nothing_is_replaced_unasked(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*sets(trained), "--out", tmp_path]
    assert compared(capsys, *words)[0] == 0
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = compared(capsys, *words)
    assert status == 1
    assert "holds windows.csv" in err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, _ = compared(capsys, *words, "--overwrite")
    assert status == 0
    assert "no picture: pictures need matplotlib; install it with" in out


def test_contexts_may_differ_where_the_targets_are_the_same(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path / "run", "--data.context", 48, "--trainer.max_epochs", 1,
        "--trainer.limit_train_batches", 1)  # fmt: skip
    status, out, err = compared(capsys, trained.run("tanh", 7), tmp_path / "run")
    assert status == 0, err
    assert "paired over 182 windows" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data.horizon", "6"], "horizon 12 and 6"),
        (["--data.borders", "[0.7,0.2,0.1]"], "windows with targets from row"),
        (["--data.borders", "[0.6,0.2,0.2]"], "scalers that were fitted on different rows"),
        (["--data.dataset", "ETTh1", "--trainer.limit_test_batches", "1",
          "--trainer.limit_val_batches", "1"], "data illness and ETTh1; a paired"),
    ],
)  # fmt: skip
def test_other_windows_are_refused_with_the_reason(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    quick = ("--trainer.max_epochs", 1, "--trainer.limit_train_batches", 1)
    fit(tmp_path / "run", *words, *quick)
    status, _, err = compared(capsys, trained.run("tanh", 7), tmp_path / "run")
    assert status == 1
    assert "are not scored on the same windows" in err
    assert reason in err
    assert "--root" not in err


def test_what_cannot_be_opened_or_paired_is_explained(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = trained.run("identity", 7), trained.run("tanh", 8)
    both = f"x={trained.run('tanh', 7)},{b}"
    other = shutil.copytree(a, tmp_path / "other")
    empty = tmp_path / "empty"
    empty.mkdir()
    unfinished = shutil.copytree(a, tmp_path / "unfinished")
    (unfinished / "checkpoints" / "best.ckpt").unlink()
    for words, said in {
        (a,): "needs two runs or sets of runs at least, got 1",
        (a, a): "two sides are called",
        (a, f"y={b},{b}"): "several runs with seed 8",
        (f"z={a}", both): "two common seeds at least, found 1 (z: 7; x: 7, 8)",
        (a, empty): "is no run folder: it has no config.yaml",
        (a, tmp_path / "gone"): "no run folder",
        (a, "x="): "names no run",
        (a, unfinished): "no checkpoint at",
        (a, b, "--block", 183): "--block must be within 1..182",
        (*sets(trained), "--block", 3): "--block belongs to single runs",
    }.items():
        status, _, err = compared(capsys, *words, "--results", tmp_path / "none")
        assert status == 1, words
        assert said in err, err
    assert compared(capsys, a, other, "--results", tmp_path / "none")[0] == 0


def test_three_sides_are_adjusted_for_their_number(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [trained.run(name, seed) for name in ("identity", "tanh") for seed in SEEDS][:3]
    status, out, _ = compared(capsys, *words)
    assert status == 0
    assert "p is adjusted for the number of sides (Holm)" in out
    assert "the seeds differ (7, 8)" in out


def test_settings_of_the_recipe_are_the_data_of_a_run(trained: Trained) -> None:
    opened = open_run(trained.run("identity", 8))
    assert RECIPE.name == "tiny.yaml"
    assert (opened.data.context, opened.data.horizon, opened.seed) == (36, 12, 8)
    assert opened.precision == "32-true"
