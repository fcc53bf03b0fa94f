"""``tsattn tune`` as a person types it: to the end, killed in between, and misused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from tests.training.tiny import RECIPE, stored_result
from tests.tune.fake import FakeEngine, Script, write_space
from tsattn.cli import main
from tsattn.training.command import TrainingCLI
from tsattn.training.folder import RunFolder
from tsattn.training.task import ForecastTask
from tsattn.tune import command, repeats
from tsattn.tune.engine import Ended, Event, Reported
from tsattn.tune.job import Job, train
from tsattn.tune.sampling import MedianPruner
from tsattn.tune.storage import open_storage, quiet

SHORT = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2"]
SPACE = """
activation: {type: categorical, choices: [identity, tanh]}
learning_rate: {type: float, low: 1.0e-3, high: 1.0e-1, log: true}
"""


class InProcess:
    """Trains in this process, one trial after the other: no worker has to be started."""

    workers = 1

    def __init__(self, *_: Any, **__: Any) -> None:
        self.jobs: list[Job] = []
        self.losses: list[tuple[int, float]] = []

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def events(self, timeout: float) -> list[Event]:
        (job,) = self.jobs
        reports: list[Event] = []

        def ask(epoch: int, loss: float) -> bool:
            reports.append(Reported(job.number, epoch, loss))
            return False

        outcome = train(job, ask)
        self.jobs = []
        return [*reports, Ended(job.number, outcome)]

    def answer(self, number: int, *, stop: bool) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LocalEngine", InProcess)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(tmp_path: Path, *more: object, space: str = SPACE) -> list[str]:
    """Return what a person types to tune the tiny recipe."""
    return [
        *("tune", "--config", str(RECIPE), "--space", write_space(tmp_path, space)),
        *("--out", str(tmp_path / "out"), *SHORT, *map(str, more)),
    ]


def summary(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))


def test_study_leaves_a_recipe_that_fits_a_summary_and_a_report(
    tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(tmp_path, "--trials", 6, "--repeat-seeds", 2, "--seed", 1)
    assert main(typed) == 0
    said = capsys.readouterr().out
    found = summary(tmp_path)
    assert found["trials"]["complete"] == 6
    assert set(found["distribution"]["activation"]) == {"identity", "tanh"}
    assert set(found["importance"]) == {"activation", "learning_rate"}
    assert [row["pairs"] for row in found["repeats"] if not row["is_reference"]] == [2]
    assert "reference" in said
    assert "repeat 0 (settings of trial " in said
    assert "undecided" in said or "lower" in said or "higher" in said

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot") >= 7
    for part in ("Importance", "paired by seed", "validation loss", "learning_rate"):
        assert part in page
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\s(src|href)=", page)  # needs no network

    best = tmp_path / "out" / "best.yaml"
    settings = yaml.safe_load(best.read_text(encoding="utf-8"))
    values = found["best"]["values"]
    assert settings["model"]["learning_rate"] == values["learning_rate"]
    assert settings["model"]["network"]["init_args"]["value_activation"] == values["activation"]
    assert settings["seed_everything"] == found["best"]["seed"]
    assert main(["fit", "--config", str(best), "--run_dir", "fitted"]) == 0
    folder = RunFolder(Path("fitted"))
    assert stored_result(folder)["recipes"] == ["tiny.yaml"]
    losses = pd.read_csv(folder.metrics)["val/loss"]
    assert losses.min() == pytest.approx(found["best"]["validation_loss"], rel=1e-4)

    before = (tmp_path / "out" / "best.yaml").read_bytes()
    assert main(typed) == 0  # all is there: nothing is trained again
    assert "trial 0" not in capsys.readouterr().out
    assert (tmp_path / "out" / "best.yaml").read_bytes() == before
    assert main(words(tmp_path, "--trials", 6, "--seed", 1)) == 0  # repeats count, asked for or not
    assert (tmp_path / "out" / "best.yaml").read_bytes() == before
    assert summary(tmp_path)["repeats"] == found["repeats"]
    assert main([*typed, "--trials", "7"]) == 0
    assert summary(tmp_path)["trials"]["complete"] == 7


def test_nothing_of_the_test_part_reaches_a_study(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*_: Any, **__: Any) -> None:
        raise AssertionError("a tuning trial scored the test part")

    monkeypatch.setattr(TrainingCLI, "_test", scored)
    monkeypatch.setattr(ForecastTask, "test_step", scored)
    walks = np.random.default_rng(0).normal(size=(400, 2)).cumsum(axis=0).round(3)
    found = []
    for name, last in (("a", 1.0), ("b", -50.0)):
        values = walks.copy()
        values[320:] *= last  # test rows alone: the parts are 0.7, 0.1 and 0.2
        frame = pd.DataFrame(values, columns=["x", "y"])
        frame.insert(0, "date", pd.date_range("2020-01-01", periods=400, freq="h"))
        frame.to_csv(f"{name}.csv", index=False)
        data = ["--data.dataset", f"{name}.csv", "--study", "same", "--trials", "3"]
        assert main([*words(tmp_path, *data), "--out", name]) == 0
        study = json.loads(Path(name, "summary.json").read_text(encoding="utf-8"))
        found.append((study["best"]["validation_loss"], study["best"]["values"]))
    assert found[0] == found[1]


def test_study_whose_trials_all_fail_says_why(
    tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "learning_rate: {type: float, low: 1.0e+29, high: 1.0e+30}"
    typed = words(tmp_path, "--trials", 2, "--model.schedule", "EpochDecay", space=space)
    assert main(typed) == 1
    assert "no trial of patchtst-illness-space came to its end" in capsys.readouterr().err
    found = summary(tmp_path)
    assert found["trials"]["fail"] == 2
    assert "NonFiniteLossError" in found["failed"][0]["reason"]
    assert not (tmp_path / "out" / "best.yaml").exists()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Let trials do what a script says, and write no report."""
    monkeypatch.setitem(sys.modules, "plotly.io", None)
    return lambda script: monkeypatch.setattr(command, "LocalEngine", lambda *_: FakeEngine(script))


def test_failures_of_one_cause_end_early_and_are_trained_again_when_asked_for(
    tmp_path: Path, play: Callable[[Script], None], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(tmp_path, "--trials", 4)
    play(lambda given, job: ["KernelBuildError: no compiler"])
    assert main(typed) == 1
    assert re.search(r"no more are begun: .*no compiler.*--retry-failed", capsys.readouterr().err)
    assert summary(tmp_path)["trials"]["fail"] == 3
    play(lambda given, job: [1.0])
    assert main([*typed, "--retry-failed"]) == 0
    assert "3 failed trials of patchtst-illness-space are tried again" in capsys.readouterr().out
    found = summary(tmp_path)
    assert (found["trials"]["complete"], found["trials"]["fail"]) == (4, 3)
    assert {failed["reason"] for failed in found["failed"]} == {"KernelBuildError: no compiler"}


def write_walk(file: str, rows: int) -> str:
    """Write hourly data whose rows do not depend on how many there are."""
    values = np.random.default_rng(0).normal(size=1000).cumsum().round(3)[:rows]
    frame = pd.DataFrame({"date": pd.date_range("2020", periods=rows, freq="h"), "x": values})
    frame.to_csv(file, index=False)
    return file


def test_study_goes_on_with_its_data_at_another_path_and_not_with_more_rows(
    tmp_path: Path, play: Callable[[Script], None], capsys: pytest.CaptureFixture[str]
) -> None:
    play(lambda given, job: [1.0])

    def typed(file: str, trials: int) -> list[str]:
        return words(tmp_path, "--study", "s", "--data.dataset", file, "--trials", trials)

    assert main(typed(write_walk("own.csv", 400), 1)) == 0
    assert main(typed(write_walk(str(tmp_path / "elsewhere.csv"), 400), 2)) == 0
    assert summary(tmp_path)["trials"]["complete"] == 2
    assert main(typed(write_walk("own.csv", 401), 3)) == 1
    assert "the study 's' was begun on other data: sha256 " in capsys.readouterr().err
    assert summary(tmp_path)["trials"]["complete"] == 2


def test_runs_of_a_study_whose_storage_is_gone_are_not_written_over(
    tmp_path: Path, play: Callable[[Script], None], capsys: pytest.CaptureFixture[str]
) -> None:
    play(lambda given, job: [1.0])
    typed = words(tmp_path, "--trials", 1)
    assert main(typed) == 0
    (tmp_path / "out" / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "out" / "study.db").rename("kept.db")
    assert main(typed) == 1
    said = r"out holds runs \(trials\) of a study .* that had trials; in .*study\.db it has none"
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out" / "study.db").exists()
    (tmp_path / "kept.db").rename(tmp_path / "out" / "study.db")
    assert main([*typed, "--trials", "2"]) == 0
    (tmp_path / "out").rename(tmp_path / "moved")  # with its storage
    assert main([*typed, "--trials", "3", "--out", "moved"]) == 0
    found = json.loads((tmp_path / "moved" / "summary.json").read_text(encoding="utf-8"))
    assert found["trials"]["complete"] == 3


def test_repeats_that_all_fail_leave_the_earlier_ones_in_the_summary(
    tmp_path: Path, play: Callable[[Script], None], capsys: pytest.CaptureFixture[str]
) -> None:
    play(lambda given, job: [1.0])
    typed = words(tmp_path, "--trials", 4)
    assert main([*typed, "--repeat-seeds", "2"]) == 0
    before = summary(tmp_path)["repeats"]
    assert len(before) == 2
    play(lambda given, job: ["KernelBuildError: no compiler"])
    assert main([*typed, "--repeat-seeds", "5"]) == 1
    assert "all failed with the same error" in capsys.readouterr().err
    assert summary(tmp_path)["repeats"] == before


def test_repeat_that_another_command_has_queued_is_trained_as_it_says(
    tmp_path: Path, play: Callable[[Script], None]
) -> None:
    name, url = "patchtst-illness-space", f"sqlite:///{tmp_path}/out/study.db"
    trained: list[str] = []

    def another_finds_better(given: dict[str, str], job: Job) -> list[float | str]:
        if job.folder is None or job.folder.parent.name != "repeats":
            return [1.0]
        if not trained:
            study, seeds = stored(url, name), stored(url, name + repeats.SUFFIX)
            assert study
            assert seeds
            like = study.trials[0]
            study.add_trial(
                optuna.create_trial(
                    value=0.5,
                    params=like.params | {"learning_rate": 0.0123},
                    distributions=like.distributions,
                    user_attrs=like.user_attrs,
                )
            )
            newer = repeats.Contender(str(like.params["activation"]), study.trials[-1].number)
            repeats.queue_repeats(seeds, [newer], 1, base=7)
        trained.append(given["model.learning_rate"])
        return [1.0]

    play(another_finds_better)
    assert main(words(tmp_path, "--trials", 2, "--repeat-seeds", 1)) == 0
    assert trained[-1] == "0.0123"
    seeds = stored(url, name + repeats.SUFFIX)
    assert seeds is not None
    assert {trial.state for trial in seeds.trials} == {TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trials", 0], "--trials must be at least 1, got 0"),
        (["--workers", 0], "--workers must be at least 1"),
        (["--repeat-seeds", -1], "--repeat_seeds must be at least 0"),
        (["--trails", 3], "did you mean --trials?"),
        (["--engine", "dask"], "unknown engine 'dask'; expected one of local, ray"),
        (["--pruner", "mean"], "unknown pruner 'mean'; expected one of median, hyperband, none"),
        (["--run_dir", "x"], "--run_dir belongs to one run"),
        (["--address", "auto"], "--address and --gpus belong to --engine ray"),
        (["--trainer.strategy", "ddp"], "a trial is one process"),
        (["--storage", "study.db"], "is no address"),
        (["--storage", "sqlite:///no/such/study.db"], "cannot be used"),
        (["--storage", "redis://host"], "unknown kind of storage 'redis'"),
        (["--pruner", "hyperband"], "needs at least 3, got --trainer.max_epochs 2"),
        (["--data.dataset", "absent.csv"], "no file"),
        (["--config", "patchtst/illnss"], "did you mean patchtst/illness.yaml?"),
    ],
)
def test_misuse_is_an_error_in_words(
    tmp_path: Path, more: list[object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, *more)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()  # the corrected command may have the folder


def test_context_cannot_vary_where_short_series_lose_windows_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = {"a": 200, "b": 90}
    times = {name: pd.date_range("2020", periods=rows, freq="D") for name, rows in lengths.items()}
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": np.sin(np.arange(len(ds)))})
        for name, ds in times.items()
    ]
    pd.concat(parts).to_csv(tmp_path / "long.csv", index=False)
    space = "context: {type: int, low: 12, high: 64}"  # b has 62 rows for training
    assert main(words(tmp_path, "--data.dataset", tmp_path / "long.csv", space=space)) == 1
    said = "'data.context' cannot be tuned on the 2 series of long"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sigterm_ends_a_study_as_ctrl_c_does(
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(InProcess, "events", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(InProcess, "close", lambda _: closed.append(True))
    assert main(words(tmp_path, "--trials", 2)) == 130
    assert closed == [True]
    assert "interrupted; the same command goes on with the study" in capsys.readouterr().out


def test_misspelt_override_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words(tmp_path, "--model.learning_rat", 1))
    assert leaving.value.code == 2
    assert "did you mean 'model.learning_rate'?" in capsys.readouterr().err


def test_folder_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(words(tmp_path)) == 1
    assert "is no folder of a study" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_folder_of_another_study_is_refused(
    tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, "--trials", 1)) == 0
    before = (tmp_path / "out" / "best.yaml").read_bytes()
    assert main(words(tmp_path, "--study", "other")) == 1
    assert "belongs to the study patchtst-illness-space" in capsys.readouterr().err
    changed = SPACE.replace("1.0e-1", "1.0e-2")
    assert main(words(tmp_path, space=changed)) == 1
    assert "was begun with another space: learning_rate" in capsys.readouterr().err
    assert (tmp_path / "out" / "best.yaml").read_bytes() == before


def test_without_plotly_there_is_everything_but_the_report(
    tmp_path: Path,
    in_process: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.io", None)
    assert main(words(tmp_path, "--trials", 1)) == 0
    assert "pip install 'tsattn[plots]'" in capsys.readouterr().out
    assert not (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "best.yaml").is_file()


def stored(url: str, name: str) -> optuna.Study | None:
    """Return a study as another process would find it, if it is there yet."""
    try:
        with quiet():
            return optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        return None


@pytest.mark.slow
def test_two_workers_one_killed_then_the_command_killed_then_resumed(
    tmp_path: Path, root: Path
) -> None:
    url = f"journal:///{tmp_path}/study.log"
    typed = words(tmp_path, "--trials", 6, "--workers", 2, "--threads", 1, "--storage", url)
    typed[typed.index("--trainer.max_epochs") + 1] = "30"
    begin = [sys.executable, "-c", "import sys; from tsattn.cli import main; sys.exit(main())"]
    running = subprocess.Popen([*begin, *typed], cwd=tmp_path, env=_environment(root))
    try:
        killed: set[int] = set()
        while True:  # once a trial has reported, its worker is killed; after its retry, the command
            assert running.poll() is None
            study = stored(url, "patchtst-illness-space")
            trials = study.trials if study else []
            busy = [t for t in trials if t.state == TrialState.RUNNING and t.intermediate_values]
            failed = [t for t in trials if t.state == TrialState.FAIL]
            if busy and not killed:
                killed = set(_children(running.pid))
                assert killed
                os.kill(min(killed), signal.SIGKILL)
            if failed and any(t.user_attrs.get("retry_of") is not None for t in busy):
                break
            time.sleep(0.05)
        assert "SIGKILL" in failed[0].user_attrs["error"]
        running.kill()
    finally:
        running.kill()
        running.wait()
    again = subprocess.run(
        [*begin, *typed], cwd=tmp_path, env=_environment(root), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "was left unfinished: it is tried again" in again.stdout
    study = stored(url, "patchtst-illness-space")
    assert study is not None
    whole = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len({t.user_attrs.get("retry_of", t.number) for t in whole}) == len(whole) == 6
    assert not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in study.trials)
    dead = [t for t in study.trials if t.state == TrialState.FAIL]
    assert 2 <= len(dead) <= 4


def _environment(root: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(root)}


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    if not listed.is_file():
        pytest.skip("this system does not list the children of a process")
    return [
        int(child)
        for child in listed.read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_pruning_trains_fewer_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    monkeypatch.setattr(command, "make_pruner", lambda name, epochs: early)
    space = "learning_rate: {type: categorical, choices: [0.02, 1.0e-7]}"
    assert main(words(tmp_path, "--trials", 5, "--trainer.max_epochs", 6, space=space)) == 0
    found = summary(tmp_path)
    assert found["trials"]["pruned"] >= 1
    assert found["epochs"] < 6 * 5
    study = stored(f"sqlite:///{tmp_path}/out/study.db", "patchtst-illness-space")
    assert study is not None
    for trial in study.trials:
        rows = Path("out", "trials", f"{trial.number:04d}", "metrics.csv").read_text().splitlines()
        assert len(rows) - 1 == trial.user_attrs["epochs"]
        assert (trial.user_attrs["epochs"] < 6) == (trial.state == TrialState.PRUNED)
