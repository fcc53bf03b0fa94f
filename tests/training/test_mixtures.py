"""Mixtures of experts from the command to the result, checkpoints and two processes."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import RECIPE, Finished, fit, python, resume, stored_result
from tsattn.cli import main
from tsattn.data.windows import WindowBatch
from tsattn.errors import CheckpointError
from tsattn.models import PatchTST
from tsattn.nn.moe import (
    DenseToSparse,
    DenseToSparseGate,
    HierarchicalGate,
    MoE,
    MoEFeedForward,
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    quadratic_overhead,
)
from tsattn.training import load_network
from tsattn.training.checkpoint import RECORD, build_network, describe_network, load_weights
from tsattn.training.folder import RunFolder
from tsattn.training.routing import describe_mixtures
from tsattn.training.routing_table import read_rows
from tsattn.training.task import ForecastTask

FEEDFORWARD = "--model.network.feedforward"
WORDS = [
    *(FEEDFORWARD, "MoE", f"{FEEDFORWARD}.gate", "QuadraticMonomialGate"),
    *(f"{FEEDFORWARD}.gate.rank", "4", f"{FEEDFORWARD}.num_experts", "4"),
    *(f"{FEEDFORWARD}.top_k", "2"),
]
SIZES: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 16, "num_layers": 2}


def network(**options: Any) -> PatchTST:
    return PatchTST(2, 24, 6, feedforward=partial(MoE, num_experts=4, **options), **SIZES)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the tiny recipe with mixtures; look, but change nothing."""
    folder = RunFolder(tmp_path_factory.mktemp("mixed") / "run")
    fit(folder.path, *WORDS, "--trainer.max_epochs", 2)
    return folder


def test_the_command_of_the_documentation_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "fit --config configs/patchtst/etth1.yaml --model.network.feedforward MoE "
        "--model.network.feedforward.gate QuadraticMonomialGate "
        "--model.network.feedforward.gate.rank 8 --model.network.feedforward.num_experts 4 "
        "--model.network.feedforward.top_k 2 --trainer.fast_dev_run true --data.batch_size 2"
    )
    assert main(words.split()) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 layers of 4 experts, 2 for each token; QuadraticMonomialGate: 1,920 para" in printed


def test_a_result_states_how_the_test_windows_were_routed(mixed: RunFolder) -> None:
    moe = stored_result(mixed)["moe"]
    assert [part["layer"] for part in moe] == ["layers.0.feedforward"]
    for part in moe:
        assert len(part["load"]) == 4
        assert sum(part["load"]) == pytest.approx(1.0)
        entropy = -sum(share * math.log2(share) for share in part["load"] if share)
        assert part["selection_entropy"] == pytest.approx(entropy)


def test_the_load_is_that_of_all_test_windows(mixed: RunFolder) -> None:
    from tsattn.data import load_panel, prepare

    trained = load_network(mixed.best)
    seen: list[torch.Tensor] = []
    for module in trained.modules():
        if isinstance(module, MoEFeedForward):
            module.register_forward_hook(
                lambda module, inputs, fed: seen.append(fed.routing.counts_E)
            )
    with torch.inference_mode():
        trained(prepare(load_panel("illness"), context=36, horizon=12).test[:].past_BTC)
    (part,) = stored_result(mixed)["moe"]
    counts = torch.stack(seen).sum(0)
    torch.testing.assert_close(counts / counts.sum(), torch.tensor(part["load"]), atol=2e-3, rtol=0)


def test_a_result_without_mixtures_says_nothing_of_them(finished: Finished) -> None:
    assert "moe" not in finished.result


def test_losses_are_logged_before_their_weights(mixed: RunFolder) -> None:
    header, *rows = mixed.metrics.read_text().splitlines()
    column = header.split(",").index("train/balance")
    assert all(0.9 < float(row.split(",")[column]) < 4 for row in rows)


def test_a_step_minimises_the_loss_and_the_weighted_losses_of_the_layers() -> None:
    task = ForecastTask(network(balance=0.3, router_z=0.02, dropout=0.0).train())
    task.log = lambda *args, **kwargs: None
    x, y = torch.randn(4, 24, 2), torch.randn(4, 6, 2)
    marks = torch.zeros(4, 24, 4), torch.zeros(4, 6, 4)
    batch = WindowBatch(x, y, *marks, torch.arange(4))
    for module in task.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    total = task.training_step(batch, 0)
    forecast = task.network(x)
    expected = (forecast.mean - y).square().mean()
    expected = expected + 0.3 * forecast.losses["balance"] + 0.02 * forecast.losses["router_z"]
    torch.testing.assert_close(total, expected)


def test_a_checkpoint_names_the_parts_and_builds_them_again(mixed: RunFolder) -> None:
    content = torch.load(mixed.best, weights_only=True)
    described = content[RECORD]["network"]
    assert described["not_stored"] == []
    assert described["arguments"]["feedforward"]["class"] == "MoE"
    again = load_network(mixed.best)
    (moe,) = [module for module in again.modules() if isinstance(module, MoE)]
    assert isinstance(moe.gate, QuadraticMonomialGate)
    assert (moe.gate.rank, moe.num_experts, moe.top_k) == (4, 4, 2)
    assert moe.experts.extra_repr().startswith("d_model=8, num_experts=4, d_ff=8")


def test_a_checkpoint_from_before_mixtures_still_opens(finished: Finished, tmp_path: Path) -> None:
    content = torch.load(finished.folder.best, weights_only=True)
    del content[RECORD]["network"]["arguments"]["feedforward"]
    torch.save(content, tmp_path / "old.ckpt")
    old = load_network(tmp_path / "old.ckpt")
    load_weights(old, tmp_path / "old.ckpt")
    words = ["test", "--config", str(finished.folder.config), "--ckpt_path"]
    assert main([*words, str(tmp_path / "old.ckpt")]) == 0


def test_a_checkpoint_of_another_mixture_is_refused_by_what_differs(mixed: RunFolder) -> None:
    other = build_network(torch.load(mixed.best, weights_only=True)[RECORD]["network"])
    arguments = describe_network(other)["arguments"]
    arguments["feedforward"]["arguments"]["gate"]["arguments"]["rank"] = 3
    differing = build_network(describe_network(other) | {"arguments": arguments})
    with pytest.raises(CheckpointError, match=r"feedforward\.gate\.rank 4 instead of 3"):
        load_weights(differing, mixed.best)
    arguments["feedforward"] = None
    dense = build_network(describe_network(other) | {"arguments": arguments})
    with pytest.raises(CheckpointError, match=r"feedforward 'MoE' instead of None"):
        load_weights(dense, mixed.best)


@pytest.mark.parametrize(
    "part",
    [
        {"class": "os.system", "arguments": {}},
        {"class": "MoE"},
        {"class": "MoE", "arguments": {"experts": {"class": "MoE", "arguments": {}}}},
        {"class": "MoE", "arguments": {"depth": 3}},
    ],
)
def test_a_checkpoint_with_another_part_is_refused(part: dict[str, Any]) -> None:
    description = describe_network(network())
    description["arguments"]["feedforward"] = part
    with pytest.raises(CheckpointError, match="PatchTST cannot be built"):
        build_network(description)


def test_a_factory_without_a_name_needs_the_network_to_be_given() -> None:
    own = PatchTST(2, 24, 6, feedforward=lambda width: MoE(width), **SIZES)
    assert describe_network(own)["not_stored"] == ["feedforward"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--feedforward.gate", "QuadraticMonomialGat"], "unknown gate 'QuadraticMonomialGat'"),
        (["--feedforward.experts", "LinExperts"], "unknown experts 'LinExperts'"),
        (["--feedforward.num_expert", "3"], "did you mean 'num_experts'"),
    ],
)
def test_a_misspelt_part_is_answered_with_the_known_ones(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("--feedforward", FEEDFORWARD) for word in words]
    with pytest.raises(SystemExit):
        main(
            ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path), FEEDFORWARD, "MoE", *words]
        )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["top_k", "9"], "got top_k=9 of 8 experts"),
        (["gate", "HierarchicalGate", "gate.groups", "3"], "cannot be divided into 3 equal groups"),
        (["gate", "QuadraticMonomialGate", "gate.rank", "99"], "got rank=99 for d_model=8"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_of_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word if place % 2 else f"{FEEDFORWARD}.{word}" for place, word in enumerate(words)]
    told = ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path / "run")]
    assert main([*told, FEEDFORWARD, "MoE", *given]) == 1
    assert message in capsys.readouterr().err


def test_what_goes_by_steps_goes_on_after_a_resume(tmp_path: Path) -> None:
    words = [
        *(FEEDFORWARD, "MoE", f"{FEEDFORWARD}.gate", "DenseToSparseGate"),
        *(f"{FEEDFORWARD}.gate.steps", "12", f"{FEEDFORWARD}.bias_step", "0.01"),
    ]
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    fit(whole.path, *words, "--model.schedule", "EpochDecay")
    fit(cut.path, *words, "--model.schedule", "EpochDecay", "--trainer.max_epochs", 2)
    resume(cut, "--trainer.max_epochs", 4)
    one = torch.load(whole.last, weights_only=True)["state_dict"]
    two = torch.load(cut.last, weights_only=True)["state_dict"]
    assert all(torch.equal(one[name], two[name]) for name in one)
    step = next(value for name, value in one.items() if name.endswith("gate.step"))
    assert step == 36  # every optimiser step, once
    gates = [m for m in load_network(whole.last).modules() if isinstance(m, DenseToSparse)]
    assert [gate.dense for gate in gates] == [False]


def test_the_summary_names_mixtures_and_what_their_gates_store() -> None:
    assert describe_mixtures(PatchTST(2, 24, 6, **SIZES)) == ""
    gated = network(gate=QuadraticMonomialGate)
    stored, free = 2 * (4 * 64 + 4), 2 * (4 * 36 + 4)
    assert f"{stored:,} parameters ({free:,} free)" in describe_mixtures(gated)


def test_the_summary_names_the_overhead_of_quadratic_terms() -> None:
    plain, hierarchy = network(), network(gate=HierarchicalGate)
    assert "quadratic" not in describe_mixtures(plain)
    assert "free" not in describe_mixtures(hierarchy)
    low = network(gate=partial(QuadraticPolynomialGate, rank=2))
    cost = quadratic_overhead(8, 4, rank=2, layers=2)
    each = quadratic_overhead(8, 4, rank=2).flops
    assert describe_mixtures(low).endswith(
        f"quadratic terms: {cost.stored:,} parameters ({cost.free:,} free), {each:,} operations"
    )
    inside = network(gate=partial(DenseToSparseGate, gate=QuadraticMonomialGate))
    assert "of these the quadratic terms: 512 parameters (288 free)" in describe_mixtures(inside)


GLOO = """
import json, sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tsattn.nn.auxiliary import feed
from tsattn.nn.moe import MoE, QuadraticMonomialGate
from tsattn.nn.stepping import after_step

torch.set_num_threads(1)

def train(share):
    torch.manual_seed(0)
    moe = MoE(16, QuadraticMonomialGate, num_experts=4, active_d_ff=16, bias_step=0.1, router_z=0.1)
    tokens = torch.randn(60, 16)
    network = DistributedDataParallel(moe) if share else moe
    optimizer = torch.optim.SGD(moe.parameters(), lr=0.1)
    for _ in range(3):
        fed = network(tokens[share] if share else tokens)
        loss = fed.output.square().mean() + fed.losses["balance"] + 0.1 * fed.losses["router_z"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(moe)
    return {name: value.clone() for name, value in moe.state_dict().items()}

def child(rank, port):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    state = train(slice(30 * rank, 30 * rank + 30))
    if rank == 0:
        torch.save(state, "two.pt")
    distributed.barrier()  # a process that leaves early may abort
    distributed.destroy_process_group()

if __name__ == "__main__":
    alone = train(None)
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(child, (port,), nprocs=2)
    two = torch.load("two.pt")
    for name, value in alone.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert alone["selection_bias.bias_E"].abs().sum() > 0
    print("equal")
"""

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this build of torch has no gloo",
)


@needs_gloo
def test_two_processes_count_the_load_of_both(tmp_path: Path) -> None:
    done = python(GLOO, cwd=tmp_path)
    assert done.stdout.endswith("equal\n"), done.stderr


SCRIPT = """
import json, sys
import torch
from tsattn.training.command import run

torch.set_num_threads(1)
sys.modules["matplotlib.figure"] = None
result = run(sys.argv[1:])
print("RESULT" + json.dumps(result))
"""


@needs_gloo
def test_a_fit_in_two_processes_reports_the_routing_of_every_test_window(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    done = python(
        SCRIPT,
        *("fit", "--config", RECIPE, "--config", "configs/trainer/ddp.yaml", *WORDS),
        *("--run_dir", folder.path, "--trainer.max_epochs", 1),
        *(f"{FEEDFORWARD}.bias_step", 0.01),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = [line[6:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    (two,) = [json.loads(result) for result in results if result != "null"]
    loads = [row for row in read_rows(folder.routing) if row.measure == "load"]
    assert [row.expert for row in loads] == [0, 1, 2, 3]
    assert sum(row.value for row in loads) == pytest.approx(1.0, abs=1e-5)
    words = ["test", "--config", str(folder.config), "--ckpt_path", "best"]
    one = python(SCRIPT, *words, "--trainer.strategy", "auto", "--trainer.devices", 1, cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    alone = json.loads(one.stdout[one.stdout.index("RESULT") + 6 :].splitlines()[0])
    assert two["moe"][0]["load"] == pytest.approx(alone["moe"][0]["load"], abs=1e-3)
