"""Competing layers from the command to the checkpoint: the same plan after a resume, upcycling."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.test_mixtures import FEEDFORWARD, needs_gloo
from tests.training.test_resume import KILL, assert_same_run
from tests.training.tiny import RECIPE, Finished, epoch_table, fit, fit_words, python, resume
from tsattn.cli import main
from tsattn.errors import CheckpointError
from tsattn.models import PatchTST
from tsattn.nn.moe import CompeteSMoE, QuadraticMonomialGate, plan_competitions
from tsattn.training import load_network, upcycle_checkpoint
from tsattn.training.folder import RunFolder
from tsattn.training.task import ForecastTask

WORDS = [
    *(FEEDFORWARD, "CompeteSMoE", f"{FEEDFORWARD}.num_experts", "4"),
    *(f"{FEEDFORWARD}.omega", "0.4", f"{FEEDFORWARD}.warmup", "0.1"),
    *(f"{FEEDFORWARD}.bias_step", "0.01", "--model.network.num_layers", "2"),
    *(f"{FEEDFORWARD}.max_layers", "1"),
]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list to which every competition of a training adds its step and layer."""
    seen: list[tuple[int, int]] = []
    step = ForecastTask.training_step

    def training_step(self: ForecastTask, batch: Any, batch_idx: int) -> torch.Tensor:
        layers = [m for m in self.network.modules() if isinstance(m, CompeteSMoE)]

        def watch(module: nn.Module, inputs: Any, fed: Any) -> None:
            if fed.routing.competed_NK is not None:
                seen.append((self.trainer.global_step, layers.index(module)))  # pyright: ignore

        hooks = [layer.register_forward_hook(watch) for layer in layers]
        total = step(self, batch, batch_idx)
        for hook in hooks:
            hook.remove()
        return total

    monkeypatch.setattr(ForecastTask, "training_step", training_step)
    return seen


@pytest.fixture(scope="module")
def competed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[tuple[int, int]]]:
    """A finished run of the tiny recipe that competed; look, but change nothing."""
    folder = RunFolder(tmp_path_factory.mktemp("competed") / "run")
    with pytest.MonkeyPatch.context() as patch:
        seen = watched(patch)
        fit(folder.path, *WORDS)
    return folder, seen


def test_a_training_competes_at_the_steps_of_the_plan(
    competed: tuple[RunFolder, list[tuple[int, int]]],
) -> None:
    _, seen = competed
    network = PatchTST(
        7, 36, 12, patch_length=12, d_model=8, num_heads=2, d_ff=16, num_layers=2,
        feedforward=lambda width: CompeteSMoE(width, omega=0.4, warmup=0.1, max_layers=1),
    )  # fmt: skip
    plan_competitions(network, 36, seed=7)
    expected: list[tuple[int, int]] = []
    for step in range(36):
        for number, layer in enumerate(m for m in network.modules() if isinstance(m, CompeteSMoE)):
            expected += [(step, number)] if layer.schedule.is_on else []
            layer.schedule.after_step()
    assert seen == expected
    assert len({step for step, _ in seen}) == len(seen) > 10
    assert min(seen)[0] >= 4  # the warm-up


@pytest.mark.parametrize("place", ["batch", "saving"])
def test_a_training_killed_and_resumed_competes_as_the_uninterrupted_one(
    competed: tuple[RunFolder, list[tuple[int, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    whole, seen = competed
    folder = RunFolder(tmp_path / "run")
    killed = python(KILL, place, *fit_words(folder.path), *WORDS, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = watched(monkeypatch)
    resume(folder)
    assert again == [(step, layer) for step, layer in seen if step >= 18]
    assert_same_run(folder, whole)


def test_lessons_are_logged_as_means_over_all_steps(
    competed: tuple[RunFolder, list[tuple[int, int]]],
) -> None:
    folder, seen = competed
    table = epoch_table(folder).astype(float)
    for epoch, lessons in enumerate(table["train/distillation"]):
        steps = [step for step, _ in seen if step // 9 == epoch]
        assert (lessons > 0) == bool(steps)
    assert (table["train/diversity"].abs() <= 0.5).all()


def test_a_checkpoint_names_the_layer_and_scores_by_the_router_alone(
    competed: tuple[RunFolder, list[tuple[int, int]]],
) -> None:
    folder, _ = competed
    network = load_network(folder.best)
    layers = [m for m in network.modules() if isinstance(m, CompeteSMoE)]
    assert [layer.schedule.settings for layer in layers] == [(0.4, 0.1, 1)] * 2
    fed = layers[0](torch.randn(9, 8))
    assert fed.routing.competed_NK is None
    words = ["test", "--config", str(folder.config), "--ckpt_path", "best"]
    assert main(words) == 0


def test_the_command_takes_a_gate_and_all_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "fit --config configs/patchtst/etth1.yaml --model.network.feedforward CompeteSMoE "
        "--model.network.feedforward.gate QuadraticMonomialGate "
        "--model.network.feedforward.gate.rank 8 --model.network.feedforward.num_experts 4 "
        "--model.network.feedforward.affinity norm --model.network.feedforward.omega 0.05 "
        "--trainer.fast_dev_run true --data.batch_size 2"
    )
    assert main(words.split()) == 0
    assert "3 layers of 4 experts" in " ".join(capsys.readouterr().out.split())


def test_a_misspelt_setting_is_answered_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path), FEEDFORWARD, "CompeteSMoE"]
    with pytest.raises(SystemExit):
        main([*words, f"{FEEDFORWARD}.max_layer", "1"])
    assert "did you mean 'max_layers'" in capsys.readouterr().err


def test_settings_that_leave_no_room_are_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path / "run"), *WORDS]
    assert main([*words, f"{FEEDFORWARD}.omega", "0.9"]) == 1
    assert "raise max_layers" in capsys.readouterr().err


UPCYCLED = [FEEDFORWARD, "CompeteSMoE", f"{FEEDFORWARD}.num_experts", "4", f"{FEEDFORWARD}.d_ff"]


def test_a_training_starts_from_a_dense_checkpoint(finished: Finished, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    dense = finished.folder.best
    words = [*UPCYCLED, "16", "--upcycle", dense, "--model.learning_rate", "0.0"]
    result = fit(folder.path, *words, "--trainer.max_epochs", 1, f"{FEEDFORWARD}.bias_step", 0)
    assert result["epochs"] == 1
    ours, theirs = load_network(folder.last).state_dict(), load_network(dense).state_dict()
    for name in ("head.weight", "layers.0.attention.output.weight"):
        if name in theirs:
            assert torch.equal(ours[name], theirs[name])
    stack = ours["layers.0.feedforward.experts.contract_weight"]
    assert all(torch.equal(p, theirs["layers.0.feedforward.contract.weight"]) for p in stack)
    assert str(dense) in folder.config.read_text()
    resume(folder, "--trainer.max_epochs", 2, "--upcycle", tmp_path / "gone.ckpt")
    assert main(["test", "--config", str(folder.config), "--ckpt_path", "best"]) == 0


def test_an_upcycled_network_forecasts_as_the_dense_one(finished: Finished) -> None:
    dense = load_network(finished.folder.best)
    arguments: dict[str, Any] = dense.init_args | {"feedforward": partial(CompeteSMoE, d_ff=16)}
    sparse = PatchTST(**arguments)
    upcycle_checkpoint(sparse, finished.folder.best)
    x = torch.randn(5, 36, 7)
    with torch.inference_mode():
        torch.testing.assert_close(sparse.eval()(x).mean, dense(x).mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["8"], r"expand.weight of the dense network is [16, 8], an expert of"),
        (["16", "--model.network.value_activation", "relu"], "value_activation 'tanh' instead of"),
        (["16", "--data.horizon", "6"], "horizon 12 instead of 6"),
        (
            ["16", "--data.borders", "[600,700,966]"],
            "76 rows, so no score would be fair",
        ),
    ],
)
def test_a_dense_checkpoint_of_another_shape_is_refused_before_anything_is_written(
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    told = ["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path / "run"), *UPCYCLED, *words]
    assert main([*told, "--upcycle", str(finished.folder.best)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_no_dense_checkpoint_is_refused(
    competed: tuple[RunFolder, list[tuple[int, int]]], tmp_path: Path
) -> None:
    network = load_network(competed[0].best)
    with pytest.raises(CheckpointError, match=r"no layers\.0\.feedforward\.expand\.weight"):
        upcycle_checkpoint(network, competed[0].best)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        upcycle_checkpoint(network, tmp_path / "none.ckpt")


GLOO = """
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tsattn.nn.moe import CompeteSMoE, QuadraticMonomialGate, plan_competitions
from tsattn.nn.stepping import after_step

torch.set_num_threads(1)

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        options = dict(num_experts=4, d_ff=8, omega=0.4, warmup=0.0, max_layers=1, gamma=1.0)
        self.layers = torch.nn.ModuleList(
            CompeteSMoE(16, QuadraticMonomialGate, **options) for _ in range(2)
        )

    def forward(self, x):
        losses = {}
        self.competed = []
        for layer in self.layers:
            fed = layer(x)
            x = x + fed.output
            losses = {k: losses.get(k, 0) + v for k, v in fed.losses.items()}
            self.competed.append(fed.routing.competed_NK is not None)
        return x, losses

def train(share):
    torch.manual_seed(0)
    plain = Network()
    plan_competitions(plain, 8, seed=4)
    tokens = torch.randn(60, 16)
    network = DistributedDataParallel(plain) if share else plain
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    steps = []
    for _ in range(8):
        output, losses = network(tokens[share] if share else tokens)
        loss = output.square().mean() + sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(plain)
        steps.append(plain.competed)
    return {name: value.clone() for name, value in plain.state_dict().items()}, steps

def child(rank, port):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    torch.save(train(slice(30 * rank, 30 * rank + 30)), f"two{rank}.pt")
    distributed.barrier()  # a process that leaves early may abort
    distributed.destroy_process_group()

if __name__ == "__main__":
    state, steps = train(None)
    assert any(map(any, steps)) and not all(map(any, steps)), steps
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(child, (port,), nprocs=2)
    for rank in range(2):
        two, competed = torch.load(f"two{rank}.pt")
        assert competed == steps, (competed, steps)
        for name, value in state.items():
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    print("equal")
"""


@needs_gloo
def test_two_processes_compete_in_the_same_steps_and_train_as_one(tmp_path: Path) -> None:
    done = python(GLOO, cwd=tmp_path)
    assert done.stdout.endswith("equal\n"), done.stderr


DDP_SCRIPT = """
import sys
import torch
from tsattn.training.command import run

torch.set_num_threads(1)
sys.modules["matplotlib.figure"] = None
run(sys.argv[1:])
"""


@needs_gloo
def test_a_fit_in_two_processes_competes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    done = python(
        DDP_SCRIPT,
        *("fit", "--config", RECIPE, "--config", "configs/trainer/ddp.yaml", *WORDS),
        *("--run_dir", folder.path, "--trainer.max_epochs", 2),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (epoch_table(folder)["train/distillation"].astype(float) > 0).any()
    layer = next(m for m in load_network(folder.last).modules() if isinstance(m, CompeteSMoE))
    assert layer.schedule.step == 8
    assert not isinstance(layer.gate, QuadraticMonomialGate)
