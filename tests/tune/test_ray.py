"""Trials on a Ray cluster of this machine: a worker and what takes reports are killed."""

import json
import os
import subprocess
import sys
import types
import unittest.mock
from pathlib import Path

import pytest

from tsattn.errors import ConfigError, MissingExtraError
from tsattn.training.cluster import connect
from tsattn.tune.engine import Died, Reported
from tsattn.tune.ray_engine import RayEngine

# In a process of its own: Ray's servers listen on the address of the machine, and live on there.
SCRIPT = """
import json, os, signal, sys
import optuna
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.engine import Reported
from tsattn.tune.ray_engine import RayEngine
from tsattn.tune.sampling import SeededTPE
from tsattn.tune.search import Search
from tsattn.tune.space import read_space

class Killing(RayEngine):
    killed, answered, buried = None, 0, []

    def answer(self, number, *, stop):
        self.answered += 1
        if self.killed is None:
            self.killed = number
            os.kill(self.processes()[number], signal.SIGKILL)
        if self.answered == 4:
            self.buried = list(self._tasks.values())
            self._ray.kill(self._mailbox)
        super().answer(number, stop=stop)

recipe = ParsedRecipe(["--config", sys.argv[1], *sys.argv[3:]])
space = read_space(sys.argv[2], recipe)
study = optuna.create_study(pruner=optuna.pruners.NopPruner())
study.sampler = SeededTPE(0, study)
engine = Killing(2, 1)
Search(
    study, engine, recipe.text, propose=space.suggest, words=space.overrides, seed=7,
    folder=None, say=print,
).run(4)
trials = [
    {
        "number": t.number, "state": t.state.name, "epochs": t.user_attrs.get("epochs"),
        "error": t.user_attrs.get("error"), "of": t.user_attrs.get("retry_of"), "params": t.params,
    }
    for t in study.trials
]
print(json.dumps({"killed": engine.killed, "buried": engine.buried, "trials": trials}))
"""


@pytest.mark.slow
def test_two_ray_workers_one_killed_and_what_takes_their_reports(
    tmp_path: Path, root: Path
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    script, space = tmp_path / "script.py", tmp_path / "space.yaml"
    script.write_text(SCRIPT, encoding="utf-8")
    space.write_text("activation: {type: categorical, choices: [identity, tanh]}\n")
    recipe = root / "tests" / "training" / "tiny.yaml"
    short = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2"]
    done = subprocess.run(
        [sys.executable, str(script), str(recipe), str(space), *short],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    trials = found["trials"]
    dead = {trial["number"]: trial for trial in trials if trial["state"] == "FAIL"}
    assert found["buried"]
    assert set(dead) == {found["killed"], *found["buried"]}
    assert "its Ray task was lost: WorkerCrashedError" in dead[found["killed"]]["error"]
    for number in found["buried"]:
        assert "the Ray actor that takes its reports was lost" in dead[number]["error"]
    again = [trial for trial in trials if trial["of"] is not None]
    params = {trial["number"]: trial["params"] for trial in trials}
    assert all(trial["params"] == params[trial["of"]] for trial in again)
    whole = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert len(whole) == 4
    assert all(trial["epochs"] == 2 for trial in whole)
    assert "was lost" in done.stdout


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsattn\[ray\]'"):
        RayEngine(1, 1)


class LostRay:
    """A cluster whose actors are lost, as long as that is so."""

    def __init__(self) -> None:
        self.lost = True
        self.cancelled: list[str] = []

    def get(self, what: object) -> list[tuple[int, int, float]]:
        from ray.exceptions import ActorDiedError

        if self.lost:
            raise ActorDiedError
        return [(5, 1, 0.25)]

    def wait(self, tasks: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return [], tasks

    def cancel(self, task: str, *, force: bool) -> None:
        self.cancelled.append(task)


def test_trials_end_with_the_actor_that_takes_reports_and_a_lost_cluster_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(RayEngine, "_open_mailbox", lambda _: unittest.mock.MagicMock())
    engine, ray = RayEngine.__new__(RayEngine), LostRay()
    engine.__dict__ |= {"_ray": ray, "_lost": False, "_mailbox": unittest.mock.MagicMock()}
    reason = "the Ray actor that takes its reports was lost: ActorDiedError"
    for _ in range(2):
        ray.lost = True
        engine._tasks = {"a": 3, "b": 4}
        assert engine.events(1.0) == [Died(3, reason), Died(4, reason)]
        engine._tasks = {"c": 5}
        ray.lost = False
        assert engine.events(1.0) == [Reported(5, 1, 0.25)]
    assert ray.cancelled == ["a", "b"] * 2
    ray.lost = True
    engine.events(1.0)
    engine._tasks = {"d": 6}
    with pytest.raises(ConfigError, match=r"the Ray cluster is lost.*goes on with the study once"):
        engine.events(1.0)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (None, {"address": "local", "num_cpus": 2, "include_dashboard": False}),
        ("auto", {"address": "auto"}),
    ],
)
def test_cluster_is_begun_unless_an_address_is_given(
    address: str | None, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, object]] = []
    ray = types.SimpleNamespace(init=lambda **given: found.append(given))
    monkeypatch.setitem(sys.modules, "ray", ray)
    connect(address, 2)
    (given,) = found
    quiet = {"log_to_driver", "logging_level"}
    assert {name: value for name, value in given.items() if name not in quiet} == asked
