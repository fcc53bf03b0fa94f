"""`tsattn bench moe`: contenders, checks, bars, and the command as it is typed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tsattn.bench import command, mixture_memory
from tsattn.bench.gate import Check
from tsattn.bench.mixture_gate import mixture_checks
from tsattn.bench.mixture_timing import (
    MixtureTiming,
    as_planned,
    bars_of,
    summary,
    table,
    time_mixtures,
)
from tsattn.bench.mixtures import (
    COMPETING,
    COMPETITION,
    MIXTURES,
    NAMES,
    PARTS,
    SIZES,
    competitions_per_step,
    contender,
    runs_of,
    tokens_of,
)
from tsattn.bench.timing import Spread
from tsattn.cli import main
from tsattn.memory import peak_resident_mib
from tsattn.nn.moe import CompeteSMoE, MoE

WEATHER, SMALL, ETTH1 = SIZES
TINY = ETTH1.with_batch(1)
MOE = ["bench", "moe", "--threads", "1", "--rounds", "1", "--memory", "false"]
MOE += ["--only", "etth1", "--parts", "feed-forward", "--gates", "linear"]
MOE += ["--precisions", "float32"]


def active_parameters(layer: MoE) -> int:
    return layer.top_k * sum(p.numel() for p in layer.experts.parameters()) // layer.num_experts


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_mixtures_use_the_active_parameters_of_the_dense_feedforward(size: Any) -> None:
    one = size.with_batch(1)
    dense = contender(one, "feed-forward", "dense").module
    for name in MIXTURES:
        mixture = contender(one, "feed-forward", name).module
        assert isinstance(mixture, MoE)
        assert (mixture.num_experts, mixture.top_k) == (8, 2)
        biases = size.arguments["d_model"]  # every expert has output biases of its own
        weights = sum(p.numel() for p in dense.parameters())
        assert active_parameters(mixture) == weights + biases
    assert tokens_of(size) == size.batch * size.channels * 42


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_reaches_every_parameter(part: str, name: str) -> None:
    made = contender(TINY, part, name)
    runs = runs_of(made, "float32")
    before = [p.detach().clone() for p in made.module.parameters()]
    for phase in ("step", "loss", "backward", "evaluation"):
        runs[phase]()
    assert all(p.grad is not None for p in made.module.parameters())
    moved = zip(before, made.module.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


def test_what_is_handed_down_is_the_gradient_of_the_output() -> None:
    made = contender(TINY, "feed-forward", "dense")
    fed = made.forward()
    (gradient,) = torch.autograd.grad(made.loss(fed), fed.output)
    assert gradient.std().item() == pytest.approx(1, abs=0.1)


def test_computations_are_checked_and_a_wrong_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = list(mixture_checks([TINY], NAMES, ["float32", "bf16"]))
    assert len(found) == 4 * 2 * 3  # gates, precisions, computations
    assert [check for check in found if not check.passed] == []
    mixed = MoE.mix
    monkeypatch.setattr(
        MoE, "mix", lambda self, x, routing: mixed(self, x, routing) * (1 + 1e-3 * self.is_loop)
    )
    monkeypatch.setattr(
        MoE, "is_loop", property(lambda self: self.computing == "loop"), raising=False
    )
    wrong = [c.name for c in mixture_checks([TINY], ["linear"], ["float32"]) if not c.passed]
    assert wrong == ["mixture linear loop float32 16x128"]


def test_all_is_timed_in_turn_and_compared() -> None:
    found = list(
        time_mixtures(
            TINY, ["network"], ["dense", "linear", "monomial"], ["float32"], rounds=1,
            memory=lambda size, part, name, precision: (20.0, 2.0),
        )
    )  # fmt: skip
    assert [(t.phase, t.name) for t in found] == [
        (phase, name)
        for phase in ("step", "forward", "backward", "evaluation")
        for name in ("dense", "linear", "monomial")
    ]
    first, second, third = found[:3]
    assert (first.times, first.bars) == ({"linear": first.times["linear"]}, {})
    assert second.bars == {}  # tokens of 16
    assert third.bars == {"linear": 1.1}
    ratio = third.milliseconds.median / first.milliseconds.median
    assert third.times["dense"].median == pytest.approx(ratio)
    assert [t.peak_mib for t in found] == [20.0] * 3 + [None] * 9


@pytest.mark.parametrize("part", PARTS)
def test_one_layer_competes_at_competing_steps_and_none_at_free_ones(part: str) -> None:
    for name, expected in ((COMPETITION, 0), (COMPETING, 1)):
        made = contender(TINY, part, name)
        layers = [m for m in made.module.modules() if isinstance(m, CompeteSMoE)]
        runs_of(made, "float32")["step"]()
        assert [layer.schedule.is_on for layer in layers].count(True) == expected
        # as many layers as the recipe has, each at 7 % of the steps
        assert competitions_per_step(made.module) == pytest.approx(0.07 * len(layers), rel=0.05)
    assert competitions_per_step(contender(TINY, part, "linear").module) == 0


def test_the_mean_step_counts_competitions_as_often_as_they_are_planned() -> None:
    seconds = {COMPETITION: [1.0, 2.0], COMPETING: [2.0, 6.0], "linear": [1.0, 1.0]}
    assert as_planned(seconds, 0.25) == seconds | {COMPETITION: [1.25, 3.0]}
    assert as_planned({COMPETITION: [1.0]}, 0.25) == {COMPETITION: [1.0]}


def test_competition_is_timed_at_both_kinds_of_steps() -> None:
    found = {
        (t.phase, t.name): t
        for t in time_mixtures(
            TINY, ["feed-forward"], ["linear", COMPETITION], ["float32"], rounds=1,
            memory=lambda size, part, name, precision: (30.0 if name == COMPETING else 20.0, 2.0),
        )
    }  # fmt: skip
    assert ("evaluation", COMPETING) not in found
    mean, most = found["step", COMPETITION], found["step", COMPETING]
    assert mean.bars == {"linear": 1.15}
    assert most.bars == {}
    assert mean.milliseconds.median < most.milliseconds.median
    assert mean.peak_mib == most.peak_mib == 30.0


def test_wide_mixtures_are_held_to_the_dense_and_quadratic_gates_to_the_linear_one() -> None:
    assert bars_of("network", "step", "dense", 128) == {}
    assert bars_of("feed-forward", "forward", "linear", 128) == {"dense": 1.5}
    assert bars_of("network", "step", "monomial", 128) == {"dense": 1.5, "linear": 1.1}
    assert bars_of("network", "backward", "monomial", 16) == {}
    assert bars_of("network", "step", COMPETITION, 128) == {"linear": 1.15}
    assert bars_of("network", "forward", COMPETITION, 128) == {}
    assert bars_of("network", "step", COMPETING, 128) == {}


def test_what_is_over_a_bar_is_marked_and_counted() -> None:
    one = Spread(1.0, 1.0, 1.0)
    timings = [
        MixtureTiming(
            "weather", "network", "float32", "step", "monomial", one,
            {"dense": Spread(dense, 1.0, 3.0), "linear": one}, {"dense": 1.5, "linear": 1.1}, 99.6,
        )
        for dense in (1.5, 1.6)
    ]  # fmt: skip
    _, rows = table(timings)
    assert [row[-3:] for row in rows] == [
        ["100", "1.50 (1.00 to 3.00)", "1.00 (1.00 to 1.00)"],
        ["100", "1.60 (1.00 to 3.00) !", "1.00 (1.00 to 1.00)"],
    ]
    assert summary(timings).startswith("1 of 2 over a bar")


def test_memory_is_that_of_a_process_which_trains_the_contender() -> None:
    if peak_resident_mib() is None:
        pytest.skip("nobody tells memory here")
    given = ("feed-forward", "linear", "float32", 1)
    assert mixture_memory.measure_mixture(TINY, *given)


def test_the_command_checks_times_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.mixtures, "SIZES", [TINY])
    file = tmp_path / "moe.json"
    assert main([*MOE, "--json", str(file), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| etth1 | feed-forward | float32 | step | linear |" in out
    assert "0 of 0 over a bar" in out
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert [t["name"] for t in stored["timings"]] == ["dense", "linear"] * 4
    assert all(check["passed"] for check in stored["checks"])


def test_nothing_is_timed_after_a_failed_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("timed in spite of a failed check")

    monkeypatch.setattr(command, "mixture_checks", lambda *_: [Check("mixture", False, "off by 1")])
    monkeypatch.setattr(command, "time_mixtures", never)
    assert main([*MOE, "--markdown"]) == 1
    out = capsys.readouterr().out
    assert "wrong: mixture: off by 1" in out
    assert "|" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gates", "linearr"], "unknown gate 'linearr'; expected linear"),
        (["--parts", "layer"], "unknown part 'layer'; expected feed-forward, network"),
        (["--only", "traffic"], "unknown recipe 'traffic'; expected weather, weather-4, etth1"),
    ],
)
def test_what_cannot_work_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*MOE, *words]) == 1
    assert message in capsys.readouterr().err
