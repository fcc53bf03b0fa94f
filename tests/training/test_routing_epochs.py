"""What is measured of mixtures epoch by epoch, against recorded routings, and after a resume."""

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import Logger

from tests.training.tiny import BATCH, STEPS, Finished, fit, fit_words, python, resume
from tests.training.tiny import stored_result as result_of
from tsattn.models import PatchTST
from tsattn.nn.moe import MoE, Routing
from tsattn.training import ForecastData, ForecastTask, routing_tally
from tsattn.training.checkpoint import read_checkpoint
from tsattn.training.folder import RunFolder
from tsattn.training.routing_epochs import RoutingOfEpochs
from tsattn.training.routing_table import MEASURES, Row, read_rows
from tsattn.training.routing_tally import (
    Assigned,
    Trained,
    Validated,
    changes,
    total_trained,
    total_validated,
    watched_windows,
)

FEEDFORWARD = "--model.network.feedforward"
LAYER = "layers.0.feedforward"
WORDS = [FEEDFORWARD, "MoE", f"{FEEDFORWARD}.num_experts", "4", f"{FEEDFORWARD}.top_k", "2"]
CONSTANT = ["--model.schedule", "EpochDecay"]
VAL_WINDOWS, TOKENS = 86, 42


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Routing]]:
    """Every routing of a training or evaluating mixture, in order."""
    seen: list[tuple[bool, Routing]] = []
    mix = MoE.mix

    def recording(self: MoE, x_ND: torch.Tensor, routing: Routing) -> torch.Tensor:
        seen.append((self.training, routing))
        return mix(self, x_ND, routing)

    monkeypatch.setattr(MoE, "mix", recording)
    return seen


def validations(recorded: list[tuple[bool, Routing]], epochs: int) -> Iterator[list[Routing]]:
    """Yield the routings of the validation of every epoch, a full batch and one of the rest.

    What was evaluated to measure speed, or to test, has no such rest.
    """
    evaluated = [routing for training, routing in recorded if not training]
    rest = (VAL_WINDOWS - BATCH) * TOKENS
    ends = [i for i, routing in enumerate(evaluated) if len(routing.experts_NK) == rest]
    assert len(ends) == epochs
    for end in ends:
        yield evaluated[end - 1 : end + 1]


def measured(rows: list[Row], epoch: int, measure: str) -> list[float]:
    return [row.value for row in rows if (row.epoch, row.measure) == (epoch, measure)]


def test_the_numbers_are_those_of_the_recorded_routings(
    tmp_path: Path, recorded: list[tuple[bool, Routing]]
) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, "--trainer.max_epochs", 3)
    rows, before = read_rows(folder.routing), None
    for epoch, batches in enumerate(validations(recorded, 3), start=1):
        tokens = [set(token) for batch in batches for token in batch.experts_NK.tolist()]
        assert len(tokens) == VAL_WINDOWS * TOKENS
        load = [sum(e in token for token in tokens) / (2 * len(tokens)) for e in range(4)]
        assert measured(rows, epoch, "load") == pytest.approx(load, abs=1e-6)
        bits = -sum(share * math.log2(share) for share in load if share)
        assert measured(rows, epoch, "selection_entropy") == pytest.approx([bits], abs=1e-6)
        weights = [w for batch in batches for w in batch.weights_NK.double().tolist()]
        bits = -sum(w / sum(t) * math.log2(w / sum(t)) for t in weights for w in t if w)
        expected = pytest.approx([bits / len(weights)], abs=2e-6)
        assert measured(rows, epoch, "weight_entropy") == expected
        if before is None:
            assert measured(rows, epoch, "change_rate") == []
        else:
            new = [len(now - then) for then, now in zip(before, tokens, strict=True)]
            rate, changed = sum(new) / 2 / len(new), sum(map(bool, new)) / len(new)
            assert 0 < rate < 1
            assert measured(rows, epoch, "change_rate") == pytest.approx([rate], abs=1e-6)
            assert measured(rows, epoch, "changed_tokens") == pytest.approx([changed], abs=1e-6)
        before = tokens
    (part,) = result_of(folder)["moe"]
    assert [part["change_rate"]] == measured(rows, 3, "change_rate")
    assert "router_agreement" not in part


def test_a_table_is_tidy(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, f"{FEEDFORWARD}.capacity", 0.5, "--trainer.max_epochs", 2)
    table = pd.read_csv(folder.routing)
    assert list(table.columns) == ["epoch", "layer", "measure", "expert", "value"]
    assert not table.duplicated(["epoch", "layer", "measure", "expert"]).any()
    assert set(table["measure"]) == set(MEASURES) - {"router_agreement"}
    assert table["expert"].notna().tolist() == (table["measure"] == "load").tolist()
    assert set(table["layer"]) == {LAYER}
    loads = table[table["measure"] == "load"].groupby("epoch")["value"].sum()
    assert loads.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert sorted(set(pd.read_csv(folder.metrics)["epoch"])) == sorted(set(table["epoch"]))


def test_dropped_slots_are_those_of_the_training_steps(
    tmp_path: Path, recorded: list[tuple[bool, Routing]]
) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, f"{FEEDFORWARD}.capacity", 0.5, "--trainer.max_epochs", 2)
    trained = [routing for training, routing in recorded if training]
    assert len(trained) == 2 * STEPS
    for epoch in (1, 2):
        of_epoch = trained[(epoch - 1) * STEPS : epoch * STEPS]
        dropped = sum(int(routing.dropped) for routing in of_epoch)
        slots = STEPS * BATCH * TOKENS * 2
        assert 0.4 < dropped / slots < 1
        expected = pytest.approx([dropped / slots], abs=1e-6)
        assert measured(read_rows(folder.routing), epoch, "dropped") == expected


def test_agreement_is_the_share_of_winners_that_the_router_picks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[tuple[bool, Routing]]
) -> None:
    route, calls = MoE.route, [0]

    def competing(self: MoE, x_ND: torch.Tensor) -> Routing:
        routing = route(self, x_ND)
        calls[0] += self.training
        if not self.training or calls[0] % 3:
            return routing
        return routing._replace(competed_NK=(routing.experts_NK + x_ND[:, :1].gt(0)) % 4)

    monkeypatch.setattr(MoE, "route", competing)
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, "--trainer.max_epochs", 1)
    competed = [routing for _, routing in recorded if routing.competed_NK is not None]
    assert len(competed) == STEPS // 3
    hits = total = 0
    for routing in competed:
        assert routing.competed_NK is not None
        picked = routing.logits_NE.argsort(dim=1, descending=True)[:, :2].tolist()
        for router, winners in zip(picked, routing.competed_NK.tolist(), strict=True):
            hits, total = hits + len(set(router) & set(winners)), total + len(winners)
    assert 0 < hits < total
    (found,) = measured(read_rows(folder.routing), 1, "router_agreement")
    assert found == pytest.approx(hits / total, abs=1e-6)
    assert result_of(folder)["moe"][0]["router_agreement"] == found


def test_few_tokens_of_windows_spread_evenly_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[tuple[bool, Routing]]
) -> None:
    monkeypatch.setattr(routing_tally, "WATCHED_TOKENS", 5 * TOKENS + 1)
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, "--trainer.max_epochs", 2)
    then, now = (
        torch.cat([batch.experts_NK for batch in batches]).view(VAL_WINDOWS, TOKENS, 2)
        for batches in validations(recorded, 2)
    )
    mismatched = [
        len(set(now[w, t].tolist()) - set(then[w, t].tolist()))
        for w in (0, 21, 42, 64, 85)
        for t in range(TOKENS)
    ]
    expected = pytest.approx([sum(mismatched) / (2 * 5 * TOKENS)], abs=1e-6)
    assert measured(read_rows(folder.routing), 2, "change_rate") == expected


def test_windows_are_watched_whatever_their_number() -> None:
    assert watched_windows(1, 10**9).tolist() == [0]
    assert watched_windows(3, 10).tolist() == [0, 1, 2]
    many = watched_windows(1000, 1000)
    assert len(set(many.tolist())) == len(many) == 16
    assert (many[0], many[-1]) == (0, 999)


def test_a_run_without_mixtures_has_no_table(finished: Finished) -> None:
    assert not finished.folder.routing.exists()
    assert "RoutingOfEpochs" not in read_checkpoint(finished.folder.last)["callbacks"]


def test_a_run_that_is_replaced_leaves_no_table(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, "--trainer.max_epochs", 1)
    folder.routing_page.write_text("old")
    fit(folder.path, "--trainer.max_epochs", 1, "--overwrite")
    assert not folder.routing.exists()
    assert not folder.routing_page.exists()


KILL = """
import os, signal, sys
import torch
from tsattn.training.saving import SafeCheckpointIO
from tsattn.training.command import run

torch.set_num_threads(1)
sys.modules["matplotlib.figure"] = None
save = SafeCheckpointIO.save_checkpoint

def killed_before_saving(self, checkpoint, path, storage_options=None):
    if checkpoint["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(self, checkpoint, path, storage_options)

SafeCheckpointIO.save_checkpoint = killed_before_saving
run(sys.argv[1:])
"""


def test_a_run_killed_between_table_and_checkpoint_resumes_to_the_same_table(
    tmp_path: Path,
) -> None:
    straight, folder = RunFolder(tmp_path / "straight"), RunFolder(tmp_path / "run")
    fit(straight.path, *WORDS, *CONSTANT)
    killed = python(KILL, *fit_words(folder.path), *WORDS, *CONSTANT, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert max(row.epoch for row in read_rows(folder.routing)) == 3
    assert read_checkpoint(folder.last)["epoch"] == 1
    resume(folder)
    assert folder.routing.read_text() == straight.routing.read_text()
    assert result_of(folder)["moe"] == result_of(straight)["moe"]
    resume(folder)  # a run that is over stays as it is
    assert folder.routing.read_text() == straight.routing.read_text()
    assert result_of(folder)["moe"] == result_of(straight)["moe"]


def test_a_checkpoint_from_before_the_table_goes_on_without_a_change_rate_at_first(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    fit(folder.path, *WORDS, *CONSTANT, "--trainer.max_epochs", 1)
    content = torch.load(folder.last, weights_only=True)
    del content["callbacks"]["RoutingOfEpochs"]
    torch.save(content, folder.last)
    folder.routing.unlink()
    resume(folder, "--trainer.max_epochs", 3)
    rows = read_rows(folder.routing)
    assert {row.epoch for row in rows} == {2, 3}
    assert measured(rows, 2, "change_rate") == []
    assert len(measured(rows, 3, "change_rate")) == 1


class Noting(Logger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "noting"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.told.append((step, metrics))


def test_a_trainer_of_ones_own_tells_its_logger_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ForecastData("illness", context=36, horizon=12, batch_size=64)
    network = PatchTST(
        7, 36, 12, d_model=8, num_heads=2, d_ff=16, num_layers=2, feedforward=lambda d: MoE(d)
    )
    logger, callback = Noting(), RoutingOfEpochs()
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=2,
        logger=logger,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ForecastTask(network), data)
    told = [(step, m) for step, m in logger.told if any(name.startswith("moe/") for name in m)]
    assert [step for step, _ in told] == [2, 4]
    second = told[1][1]
    loads = [second[f"moe/layers.1.feedforward/load_{expert}"] for expert in range(8)]
    assert sum(loads) == pytest.approx(1.0)
    assert 0 <= second["moe/layers.0.feedforward/change_rate"] <= 1
    assert "moe/layers.0.feedforward/change_rate" not in told[0][1]
    assert not any("moe" in name for name in trainer.callback_metrics)
    assert list(tmp_path.iterdir()) == []
    assert all(not module._forward_hooks for module in network.modules())


def routing_of(tokens: int, seed: int) -> Routing:
    stream = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, 4, generator=stream)
    experts = logits.argsort(dim=1)[:, :2]
    counts = experts.flatten().bincount(minlength=4)
    weights = torch.rand(tokens, 2, generator=stream)
    won = experts.flip(1).add(seed % 2).remainder(4)
    return Routing(logits, logits.softmax(1), experts, weights, counts, torch.tensor(seed), won)


def test_processes_add_up_to_one() -> None:
    batches = [(routing_of(12, seed), torch.arange(3) + 3 * seed) for seed in range(4)]

    def validated(*numbers: int) -> Validated:
        part = Validated(torch.zeros(4, dtype=torch.int64))
        for number in numbers:
            part.add(batches[number][0], batches[number][1], 12)
        return part

    def trained(*numbers: int) -> Trained:
        part = Trained()
        for number in numbers:
            part.add(batches[number][0], limited=True)
        return part

    one, two = validated(0, 1, 2, 3), total_validated([validated(2, 0), validated(3, 1)])
    for (*names, value), (*others, other) in zip(one.measured(), two.measured(), strict=True):
        assert names == others
        assert value == pytest.approx(other)
    ours, theirs = one.assigned(), two.assigned()
    assert ours is not None
    assert theirs is not None
    assert ours.windows_W.tolist() == theirs.windows_W.tolist() == list(range(12))
    assert torch.equal(ours.experts_WLK, theirs.experts_WLK)
    parts = total_trained([trained(3, 1), trained(), trained(0, 2)])
    assert parts.measured() == trained(0, 1, 2, 3).measured()
    assert parts.measured()[0] == ("dropped", None, 6 / 96)


def test_only_windows_and_layers_that_can_be_compared_are() -> None:
    experts = torch.tensor([[[0, 1]], [[2, 3]], [[1, 2]]])
    before = Assigned(torch.tensor([0, 4, 8]), experts)
    after = Assigned(torch.tensor([4, 8, 9]), torch.tensor([[[3, 0]], [[2, 1]], [[0, 1]]]))
    assert changes(before, after) == [("change_rate", None, 0.25), ("changed_tokens", None, 0.5)]
    assert changes(before, Assigned(torch.tensor([5]), experts[:1])) == []
    assert changes(before, Assigned(before.windows_W, experts[:, :, :1])) == []
    assert changes(None, after) == changes(before, None) == []
