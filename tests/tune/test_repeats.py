"""Repeated seeds: what takes part, what is queued, and the paired interval."""

import io
import math
import statistics
from pathlib import Path

import optuna
import pytest
import scipy.stats
from optuna import Study
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
from rich.console import Console

from tests.tune.fake import FakeEngine, write_space
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune import claims
from tsattn.tune.repeats import (
    Comparison,
    Contender,
    compare,
    contenders,
    propose,
    queue_repeats,
    rank,
    reference_of,
)
from tsattn.tune.sampling import RETRY_OF
from tsattn.tune.search import Search
from tsattn.tune.space import Space, read_space
from tsattn.tune.summary import best_recipe, show, summarise

LOSSES = {
    0: [0.50, 0.52, 0.48, 0.51],
    1: [0.40, 0.41, 0.39, 0.42],
    2: [0.55, 0.50, 0.49, 0.51],
}


@pytest.fixture
def space(tmp_path: Path, recipe: ParsedRecipe) -> Space:
    return read_space(write_space(tmp_path), recipe)


def searched(study: Study, space: Space) -> None:
    """Fill a study with trials of known losses, one stopped and one failed among them."""
    rows = [
        ("identity", 0.7, TrialState.COMPLETE),
        ("tanh", 0.6, TrialState.COMPLETE),
        ("relu", 0.9, TrialState.COMPLETE),
        ("tanh", 0.8, TrialState.COMPLETE),
        ("identity", 0.5, TrialState.COMPLETE),
        ("relu", 0.1, TrialState.PRUNED),
        ("relu", None, TrialState.FAIL),
    ]
    distributions = {p.name: p.distribution for p in space.parameters}
    for place, (activation, loss, state) in enumerate(rows):
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=loss,
                params={"value_activation": activation, "learning_rate": 1e-3 * (place + 1)},
                distributions=distributions,
                user_attrs={"seed": 7, "epochs": 4, "config": "# made from: tiny.yaml\nseed: 7\n"},
            )
        )


def repeated(study: Study, found: list[Contender], seeds: int) -> FakeEngine:
    queue_repeats(study, found, seeds, base=7)
    numbers = [contender.number for contender in found]
    engine = FakeEngine(lambda given, job: [LOSSES[int(given["of"])][int(given["at"])]])
    Search(
        study,
        engine,
        "recipe",
        propose=propose,
        words=lambda v: ["--of", str(numbers.index(v["of"])), "--at", str(v["seed"] - 1007)],
        seed=7,
        folder=None,
        say=lambda line: None,
    ).run(0)
    return engine


def test_best_whole_trial_of_every_choice_takes_part(study: Study, space: Space) -> None:
    searched(study, space)
    found = contenders(study, space)
    assert found == [Contender("identity", 4), Contender("tanh", 1), Contender("relu", 2)]
    assert reference_of(found) == "identity"


def test_without_choices_the_best_three_take_part(
    tmp_path: Path, recipe: ParsedRecipe, study: Study
) -> None:
    text = "learning_rate: {type: float, low: 1.0e-4, high: 1.0}"
    space = read_space(write_space(tmp_path, text), recipe)
    for loss in (3.0, 1.0, 4.0, 2.0):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, loss)
    found = contenders(study, space)
    assert [contender.number for contender in found] == [1, 3, 0]
    assert reference_of(found) is None


def test_interval_is_students_of_the_paired_differences(study: Study) -> None:
    found = [Contender("identity", 4), Contender("tanh", 1), Contender("relu", 2)]
    engine = repeated(study, found, 4)
    assert len(engine.jobs) == 12
    identity, tanh, relu = compare(study, found, "identity")
    assert identity.is_reference
    assert identity.differences == {}
    assert list(identity.losses) == [1007, 1008, 1009, 1010]
    for comparison, mine in ((tanh, LOSSES[1]), (relu, LOSSES[2])):
        paired = [a - b for a, b in zip(mine, LOSSES[0], strict=True)]
        assert list(comparison.differences.values()) == pytest.approx(paired)
        half = scipy.stats.t.ppf(0.975, 3) * statistics.stdev(paired) / math.sqrt(4)
        assert comparison.low == pytest.approx(statistics.fmean(paired) - half)
        assert comparison.high == pytest.approx(statistics.fmean(paired) + half)
    assert (tanh.verdict, relu.verdict) == ("lower", "undecided")


def test_repeats_that_are_there_are_not_run_again(study: Study) -> None:
    found = [Contender("identity", 4), Contender("tanh", 1)]
    repeated(study, found, 2)
    engine = repeated(study, found, 3)
    assert [job.words[1] for job in engine.jobs] == ["0", "1"]
    assert len(compare(study, found, None)[0].losses) == 3


@pytest.mark.parametrize("damaged", [False, True])
def test_repeat_killed_before_its_values_were_drawn_is_repeated_as_queued(
    study: Study, damaged: bool
) -> None:
    found = [Contender("identity", 4), Contender("tanh", 1)]
    queue_repeats(study, found, 2, base=7)
    claims.sign(study.ask())
    if damaged:  # as an older version left its retry: queued without values, one drawn at random
        study.tell(0, state=TrialState.FAIL)
        left = study.trials[0].user_attrs
        study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params={"of": 123456},
                distributions={"of": IntDistribution(0, 2**31)},
                user_attrs={k: v for k, v in left.items() if k != "of"} | {RETRY_OF: 0},
            )
        )
    engine = repeated(study, found, 2)
    assert sorted(tuple(job.words[1:4:2]) for job in engine.jobs) == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"),
    ]  # fmt: skip
    assert [list(c.losses) for c in compare(study, found, "identity")] == [[1007, 1008]] * 2
    assert not study.get_trials(states=(TrialState.RUNNING,))


def test_failed_repeat_is_tried_again_with_its_seed(study: Study) -> None:
    found = [Contender("identity", 0)]
    queue_repeats(study, found, 1, base=7)
    study.tell(study.ask(), state=TrialState.FAIL)
    assert repeated(study, found, 1).jobs == []
    assert claims.retry_failed(study) == 1
    assert len(repeated(study, found, 1).jobs) == 1
    assert list(compare(study, found, "identity")[0].losses) == [1007]


def test_missing_seed_decides_nothing(study: Study, space: Space) -> None:
    searched(study, space)
    identity, tanh, relu = contenders(study, space)
    losses = {
        identity: dict(zip(range(1007, 1012), [1.0, 1.0, 1.0, 1.0, 2.0], strict=True)),
        tanh: dict.fromkeys(range(1007, 1011), 1.1),
        relu: {1007: 0.1},
    }
    ranking = rank(losses)
    assert ranking.seeds == (1007, 1008, 1009, 1010)
    assert ranking.means == {identity: pytest.approx(1.0), tanh: pytest.approx(1.1)}
    assert rank({relu: losses[relu]}).means == {}
    compared = [
        Comparison(contender, mine, {}, None, None, contender is identity)
        for contender, mine in losses.items()
    ]
    summary = summarise(study, space, compared)
    best = summary["best"]
    assert (best["trial"], best["because"]) == (4, "the lowest mean over 4 seeds")
    assert (
        "those 4 of 5 seeds that all have finished: identity 1.0000, tanh 1.1000; left out"
        in (summary["ranking"])
    )
    shown = io.StringIO()
    show(summary, Console(file=shown, width=200))
    assert "Some repeats have failed" in shown.getvalue()
    alone = summarise(study, space, compared[:1])["ranking"]
    assert alone is not None
    assert "fewer than two finished repeats: tanh (trial 1), relu (trial 2);" in alone


def add_tanh(study: Study, loss: float) -> int:
    """Let the search find one more setting with tanh; return its number."""
    (like,) = [trial for trial in study.trials if trial.number == 1]
    study.add_trial(
        optuna.create_trial(
            state=TrialState.COMPLETE,
            value=loss,
            params=like.params,
            distributions=like.distributions,
            user_attrs=like.user_attrs,
        )
    )
    return study.trials[-1].number


def test_repeated_setting_stands_for_its_choice_until_a_better_one_is_repeated(
    study: Study, space: Space
) -> None:
    searched(study, space)
    seeds = optuna.create_study(pruner=optuna.pruners.NopPruner())
    repeated(seeds, contenders(study, space), 4)
    newer = add_tanh(study, 0.3)
    assert [c.number for c in contenders(study, space)] == [4, newer, 2]
    found = contenders(study, space, seeds)
    assert [c.number for c in found] == [4, 1, 2]
    summary = summarise(study, space, compare(seeds, found, "identity"))
    assert (summary["best"]["trial"], len(summary["repeats"])) == (1, 3)
    assert f"fewer than two finished repeats: tanh (trial {newer})" in summary["ranking"]

    queue_repeats(seeds, contenders(study, space), 2, base=7)
    for trial in [trial for trial in seeds.trials if trial.state == TrialState.WAITING]:
        assert trial.user_attrs["of"] == newer
        seeds.tell(seeds.ask(), 0.45)
    found = contenders(study, space, seeds)
    assert [c.number for c in found] == [4, newer, 2]
    summary = summarise(study, space, compare(seeds, found, "identity"))
    assert summary["best"]["trial"] == newer
    assert "fewer than two finished" not in summary["ranking"]


def test_one_seed_decides_nothing(study: Study) -> None:
    found = [Contender("identity", 4), Contender("tanh", 1)]
    repeated(study, found, 1)
    comparisons = compare(study, found, "identity")
    assert [comparison.low for comparison in comparisons] == [None, None]
    assert [comparison.verdict for comparison in comparisons] == ["undecided"] * 2


def test_summary_counts_and_chooses(study: Study, space: Space) -> None:
    searched(study, space)
    alone = summarise(study, space, [])
    assert alone["trials"] == {"running": 0, "complete": 5, "pruned": 1, "fail": 1, "waiting": 0}
    assert (alone["best"]["trial"], alone["best"]["because"]) == (4, "the lowest validation loss")
    rows = alone["distribution"]["value_activation"]
    assert list(rows) == ["identity", "tanh", "relu"]
    assert rows["tanh"]["losses"] == [0.6, 0.8]
    assert rows["tanh"]["median"] == pytest.approx(0.7)
    assert (rows["relu"]["complete"], rows["relu"]["pruned"], rows["relu"]["failed"]) == (1, 1, 1)
    assert alone["importance"] is not None
    assert sum(alone["importance"].values()) == pytest.approx(1.0)
    assert [failed["trial"] for failed in alone["failed"]] == [6]
    seeds = optuna.create_study(pruner=optuna.pruners.NopPruner())
    found = contenders(study, space)
    repeated(seeds, found, 4)
    both = summarise(study, space, compare(seeds, found, "identity"))
    assert (both["best"]["trial"], both["best"]["because"]) == (1, "the lowest mean over 4 seeds")
    assert both["repeats"][1]["verdict"] == "lower"
    recipe = best_recipe(study, both["best"]).splitlines()
    assert recipe[0] == "# made from: tiny.yaml"
    assert "trial 1 of the study" in recipe[1]
    assert recipe[2] == "seed: 7"


def test_repeat_that_another_command_took_first_is_given_up(study: Study) -> None:
    found = [Contender("identity", 0)]
    queue_repeats(study, found, 1, base=7)
    theirs = study.ask()  # between the look at the queue and the question for a trial
    search = Search(
        study,
        FakeEngine(lambda given, job: [1.0]),
        "recipe",
        propose=propose,
        words=lambda values: pytest.fail(f"a trial was made up: {values}"),
        seed=7,
        folder=None,
        say=lambda line: None,
    )
    search._start()  # pyright: ignore[reportPrivateUsage]
    states = {trial.number: trial.state for trial in study.get_trials()}
    assert states == {theirs.number: TrialState.RUNNING, 1: TrialState.FAIL}
