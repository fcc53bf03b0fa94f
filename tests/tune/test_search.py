"""The loop of a study, on trials that are written down instead of trained."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna import Study
from optuna.trial import TrialState

from tests.tune.fake import FakeEngine, Script, overrides, write_space
from tsattn.errors import ConfigError, DataError
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune import claims
from tsattn.tune.claims import proposals, retry_failed
from tsattn.tune.identity import known_data
from tsattn.tune.job import Job
from tsattn.tune.sampling import SeededTPE, make_pruner
from tsattn.tune.search import CONFIG, ERROR, SameFailureError, Search
from tsattn.tune.space import Space, read_space

RATE = "model.learning_rate"


@pytest.fixture
def space(tmp_path: Path, recipe: ParsedRecipe) -> Space:
    return read_space(write_space(tmp_path), recipe)


def search(
    study: Study, space: Space, engine: FakeEngine, trials: int, seed: int = 7,
    folder: Path | None = None,
) -> list[str]:  # fmt: skip
    """Run a study and return what was said."""
    said: list[str] = []
    study.sampler = SeededTPE(0, study)
    Search(
        study, engine, "recipe", propose=space.suggest, words=space.overrides, seed=seed,
        folder=folder, say=said.append,
    ).run(trials)  # fmt: skip
    return said


def by_rate(given: dict[str, str], job: Job) -> Sequence[float | str]:
    """Fall to a loss that is the rate."""
    rate = float(given[RATE])
    return [rate + 2, rate + 1, rate]


def found(study: Study) -> list[tuple[dict[str, Any], float | None, int]]:
    """Return values, loss and seed of every whole trial, in the order of their losses."""
    whole = study.get_trials(states=(TrialState.COMPLETE,))
    rows = [(trial.params, trial.value, trial.user_attrs["seed"]) for trial in whole]
    return sorted(rows, key=str)


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_best_loss_over_the_epochs_is_what_counts(study: Study, space: Space) -> None:
    engine = FakeEngine(lambda given, job: [3.0, 1.0, 2.0])
    search(study, space, engine, 3)
    assert [trial.value for trial in study.trials] == [1.0] * 3
    assert [trial.user_attrs["best_epoch"] for trial in study.trials] == [2] * 3
    assert [trial.user_attrs["epochs"] for trial in study.trials] == [3] * 3
    assert study.trials[1].intermediate_values == {1: 3.0, 2: 1.0, 3: 2.0}
    assert study.trials[1].user_attrs[CONFIG].startswith("# made from: tiny.yaml")
    assert engine.closed


def test_study_that_has_enough_runs_nothing(study: Study, space: Space) -> None:
    search(study, space, FakeEngine(by_rate), 4)
    engine = FakeEngine(by_rate)
    search(study, space, engine, 4)
    assert engine.jobs == []
    assert len(study.trials) == 4


def test_two_workers_run_two_trials_at_a_time(study: Study, space: Space) -> None:
    engine = FakeEngine(by_rate, workers=2)
    search(study, space, engine, 7)
    assert states(study) == ["COMPLETE"] * 7
    assert len(engine.jobs) == 7


def test_pruned_trial_is_told_to_stop_and_recorded(space: Space) -> None:
    study = optuna.create_study(pruner=make_pruner("median", 10))

    def worse_later(given: dict[str, str], job: Job) -> Sequence[float | str]:
        return [float(job.number)] * 10

    engine = FakeEngine(worse_later)
    search(study, space, engine, 9)
    assert states(study) == ["COMPLETE"] * 5 + ["PRUNED"] * 4
    assert set(engine.stopped) == {5, 6, 7, 8}
    assert all(epochs < 10 for epochs in engine.stopped.values())
    assert [trial.user_attrs["epochs"] for trial in study.trials[5:]] == list(
        engine.stopped.values()
    )


def test_hyperband_stops_some_before_their_last_epoch(space: Space) -> None:
    study = optuna.create_study(pruner=make_pruner("hyperband", 9), study_name="brackets")
    engine = FakeEngine(lambda given, job: [float(job.number)] * 9)
    search(study, space, engine, 12)
    assert states(study).count("PRUNED") >= 3
    assert "COMPLETE" in states(study)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12


@pytest.mark.parametrize("epochs", [-1, 0, 1, 2])
def test_hyperband_needs_epochs_to_share_out(epochs: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 3, got --trainer.max_epochs {epochs}"):
        make_pruner("hyperband", epochs)
    make_pruner("hyperband", 3)
    make_pruner("hyperband", None)
    make_pruner("median", epochs)


def test_failed_trial_is_recorded_with_its_error_and_the_study_goes_on(
    study: Study, space: Space
) -> None:
    def second_fails(given: dict[str, str], job: Job) -> Sequence[float | str]:
        return [1.0, "NonFiniteLossError: nan"] if job.number == 1 else [1.0]

    said = search(study, space, FakeEngine(second_fails), 4)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].user_attrs[ERROR] == "NonFiniteLossError: nan"
    assert any("trial 1 (" in line and ") failed: NonFiniteLossError" in line for line in said)


@pytest.mark.parametrize("workers", [1, 5])
def test_cause_that_hits_all_trials_stops_the_study_and_they_are_tried_again(
    study: Study, space: Space, workers: int
) -> None:
    absent = FakeEngine(lambda given, job: ["DataAbsentError: no file"], workers)
    first = max(3, workers)
    said = f"the first {first} trials all failed with the same error.*no file.*--retry-failed"
    with pytest.raises(SameFailureError, match=said):
        search(study, space, absent, 30)
    assert states(study) == ["FAIL"] * first
    assert retry_failed(study) == first
    assert retry_failed(study) == 0  # they are queued
    search(study, space, FakeEngine(by_rate, workers), 30)
    assert states(study).count("FAIL") == first
    assert all("no file" in trial.user_attrs[ERROR] for trial in study.trials[:first])
    undisturbed = optuna.create_study(pruner=optuna.pruners.NopPruner())
    search(undisturbed, space, FakeEngine(by_rate, workers), 30)
    assert len(found(study)) == 30
    assert found(study)[:3] == found(undisturbed)[:3] or workers > 1
    assert retry_failed(study) == 0


@pytest.mark.parametrize("losses", [[1.0, "the same"], ["another every time {}"]])
def test_failures_that_are_the_trials_own_do_not_stop_the_study(
    study: Study, space: Space, losses: list[float | str]
) -> None:
    def fails(given: dict[str, str], job: Job) -> Sequence[float | str]:
        return [x.format(job.number) if isinstance(x, str) else x for x in losses]

    search(study, space, FakeEngine(fails), 6)
    assert states(study) == ["FAIL"] * 6


@pytest.mark.parametrize(
    "error",
    [
        "ExistsError: {0.folder} holds a run already",
        "ExistsError: {1}/{0.folder} holds a run already",
        "the command did not take fit --run_dir {0.folder} {2} (status 2)",
    ],
)
def test_same_error_is_the_same_though_it_names_the_trial(
    study: Study, space: Space, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = FakeEngine(lambda _, job: [error.format(job, tmp_path, " ".join(job.words))])
    with pytest.raises(SameFailureError, match=r"the first 3 trials all failed.*0002"):
        search(study, space, engine, 30, folder=Path("out", "trials"))
    assert states(study) == ["FAIL"] * 3


def test_trial_measured_on_other_data_fails_and_ends_the_search(study: Study, space: Space) -> None:
    engine = FakeEngine(by_rate, data=lambda number: "sha256 bb" if number == 2 else "sha256 aa")
    said = r"trial 2 \(.*other data than the study .*sha256 bb instead of sha256 aa.*--retry-failed"
    with pytest.raises(DataError, match=said):
        search(study, space, engine, 5)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert "sha256 bb instead" in study.trials[2].user_attrs[ERROR]
    assert known_data(study) == "sha256 aa"
    assert retry_failed(study) == 1
    search(study, space, FakeEngine(by_rate, data=lambda _: "sha256 aa"), 5)
    assert states(study).count("COMPLETE") == 5


def test_workers_that_always_die_stop_the_study_after_three_tries_of_three_trials(
    study: Study, space: Space
) -> None:
    with pytest.raises(SameFailureError, match="SIGKILL"):
        search(study, space, FakeEngine(lambda given, job: ["dies"]), 30)
    assert states(study) == ["FAIL"] * 9
    assert proposals(study.trials) == 3


def test_trial_killed_before_its_values_were_drawn_gets_them_then(
    study: Study, space: Space
) -> None:
    study.sampler = SeededTPE(0, study)
    claims.sign(study.ask())
    search(study, space, FakeEngine(by_rate), 6)
    undisturbed = optuna.create_study(pruner=optuna.pruners.NopPruner())
    search(undisturbed, space, FakeEngine(by_rate), 6)
    assert found(study) == found(undisturbed)


def test_trial_whose_worker_died_is_tried_again_with_its_values_and_seed(
    study: Study, space: Space
) -> None:
    def second_dies(given: dict[str, str], job: Job) -> Sequence[float | str]:
        return [9.0, "dies"] if job.number == 1 else by_rate(given, job)

    engine = FakeEngine(second_dies)
    search(study, space, engine, 4)
    assert states(study).count("FAIL") == 1
    assert states(study).count("COMPLETE") == 4
    assert proposals(study.trials) == 4
    (again,) = [trial for trial in study.trials if trial.user_attrs.get("retry_of") == 1]
    assert again.params == study.trials[1].params
    assert again.user_attrs["seed"] == study.trials[1].user_attrs["seed"]
    assert overrides(engine.jobs[1]) == overrides(engine.jobs[2])
    undisturbed = optuna.create_study(pruner=optuna.pruners.NopPruner())
    search(undisturbed, space, FakeEngine(by_rate), 4)
    assert found(undisturbed) == found(study)


def test_trial_that_always_kills_its_worker_is_tried_three_times(
    study: Study, space: Space
) -> None:
    def kills(given: dict[str, str], job: Job) -> Sequence[float | str]:
        return ["dies"] if given["model.network.value_activation"] == "tanh" else [1.0]

    said = search(study, space, FakeEngine(kills), 12)
    assert proposals(study.trials) == 12
    dead = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert {trial.params["value_activation"] for trial in dead} == {"tanh"}
    assert len(dead) == 3 * len({trial.user_attrs.get("retry_of", trial.number) for trial in dead})
    assert any("it was tried often enough" in line for line in said)


def test_configuration_that_comes_again_gets_the_next_seed(
    tmp_path: Path, recipe: ParsedRecipe, study: Study
) -> None:
    text = "activation: {type: categorical, choices: [identity, tanh]}"
    space = read_space(write_space(tmp_path, text), recipe)
    engine = FakeEngine(lambda given, job: [1.0])
    search(study, space, engine, 9)
    for choice in ("identity", "tanh"):
        seeds = [
            int(overrides(job)["seed_everything"])
            for job in engine.jobs
            if overrides(job)["model.network.value_activation"] == choice
        ]
        assert seeds == list(range(7, 7 + len(seeds)))


def interrupted(at: int) -> Script:
    """Return a script that is interrupted in one trial."""

    def script(given: dict[str, str], job: Job) -> Sequence[float | str]:
        if job.number == at:
            raise KeyboardInterrupt
        return by_rate(given, job)

    return script


@pytest.mark.parametrize("interrupted_at", [0, 3, 12])
def test_interrupted_and_resumed_study_is_the_uninterrupted_one(
    space: Space, interrupted_at: int
) -> None:
    whole = optuna.create_study(pruner=optuna.pruners.NopPruner())
    search(whole, space, FakeEngine(by_rate), 16)
    resumed = optuna.create_study(pruner=optuna.pruners.NopPruner())
    engine = FakeEngine(interrupted(interrupted_at))
    with pytest.raises(KeyboardInterrupt):
        search(resumed, space, engine, 16)
    assert engine.closed
    assert resumed.trials[interrupted_at].state == TrialState.FAIL
    search(resumed, space, FakeEngine(by_rate), 16)
    assert found(resumed) == found(whole)


def test_trials_of_a_command_that_is_gone_are_tried_again(
    study: Study, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.sampler = SeededTPE(0, study)
    left = study.ask()
    values = space.suggest(left)
    for name, value in {"machine": "another", "process": 1, "signed": 0.0, "seed": 41}.items():
        left.set_user_attr(name, value)
    assert not claims.is_abandoned(study.trials[0])  # it began just now
    monkeypatch.setattr(claims, "GRACE_SECONDS", -1.0)
    said = search(study, space, FakeEngine(by_rate), 3)
    assert states(study).count("COMPLETE") == 3
    assert study.trials[0].state == TrialState.FAIL
    (again,) = [trial for trial in study.trials if trial.user_attrs.get("retry_of") == 0]
    assert again.params == values
    assert again.user_attrs["seed"] == 41
    assert "trial 0 was left unfinished: it is tried again" in said


def test_trial_is_abandoned_when_its_process_is_gone_from_this_machine(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    trial = study.ask()
    claims.sign(trial)
    assert not claims.is_abandoned(study.trials[0], mine=[0])
    assert claims.is_abandoned(study.trials[0])  # left by an earlier study of this process
    trial.set_user_attr("process", os.getppid())
    assert not claims.is_abandoned(study.trials[0])
    with monkeypatch.context() as patched:
        patched.setattr(claims, "GRACE_SECONDS", -1.0)
        assert claims.is_abandoned(study.trials[0])  # the number is another process's by now
    trial.set_user_attr("process", gone.pid)
    assert claims.is_abandoned(study.trials[0])
    trial.set_user_attr("machine", "another")
    assert not claims.is_abandoned(study.trials[0])


def test_signature_is_renewed_also_after_the_machine_has_slept(
    study: Study, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(time.time(), 40.0)  # the monotonic one stands still meanwhile
    monkeypatch.setattr(time, "time", lambda: next(clock))
    kept: list[float] = []

    def looks(given: dict[str, str], job: Job) -> Sequence[float | str]:
        kept.append(study.trials[0].user_attrs["signed"])
        return [1.0] * 3

    search(study, space, FakeEngine(looks), 2)
    assert kept[1] - kept[0] >= 3 * 40


def test_trial_given_up_by_another_command_is_dropped_quietly(study: Study, space: Space) -> None:
    def taken_away(given: dict[str, str], job: Job) -> Sequence[float | str]:
        if job.number == 1:
            study.tell(1, state=TrialState.FAIL)
        return by_rate(given, job)

    search(study, space, FakeEngine(taken_away), 3)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
