"""Trials on a Ray cluster of this machine: two workers, one of which is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    killed = None

    def answer(self, number, *, stop):
        if self.killed is None:
            self.killed = number
            os.kill(self.processes()[number], signal.SIGKILL)
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
print(json.dumps({"killed": engine.killed, "trials": trials}))
"""


@pytest.mark.slow
def test_two_ray_workers_one_killed(tmp_path: Path, root: Path) -> None:
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
    (dead,) = [trial for trial in trials if trial["state"] == "FAIL"]
    assert dead["number"] == found["killed"]
    assert "its Ray task was lost: WorkerCrashedError" in dead["error"]
    (again,) = [trial for trial in trials if trial["of"] is not None]
    assert (again["of"], again["params"]) == (dead["number"], dead["params"])
    whole = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert len(whole) == 4
    assert all(trial["epochs"] == 2 for trial in whole)
    assert "was lost" in done.stdout


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tsattn.errors import MissingExtraError
    from tsattn.tune.ray_engine import RayEngine

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsattn\[ray\]'"):
        RayEngine(1, 1)
