"""The competing layer: when it competes, what it returns then, and what it trains."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn.auxiliary import loss_weights
from tsattn.nn.moe import (
    NORMALISATIONS,
    CompeteSMoE,
    Experts,
    MoE,
    QuadraticMonomialGate,
    affinities,
    balance_loss,
    baseline,
    compete,
    distillation_loss,
    diversity_loss,
    plan_competitions,
)
from tsattn.nn.stepping import after_step

D, E = 8, 4


def layer(*, competing: bool = True, **options: object) -> CompeteSMoE:
    """A layer that competes at every step, or never."""
    given: dict[str, object] = {"num_experts": E, "d_ff": 8, "warmup": 0.0} | options
    moe = CompeteSMoE(D, **(given | {"omega": float(competing)}))  # pyright: ignore
    plan_competitions(moe, 1000)
    return moe


def test_a_competition_is_the_mixture_of_the_winners() -> None:
    moe, x = layer(), torch.randn(3, 5, D)
    fed = moe(x)
    competition = compete(moe.experts, x.flatten(0, 1), 2)
    torch.testing.assert_close(fed.output, competition.mixture.view_as(x))
    assert torch.equal(fed.routing.competed_NK, competition.winners_NK)


def test_the_routing_goes_on_to_describe_what_the_gate_would_choose() -> None:
    moe, plain = layer(), MoE(D, num_experts=E, d_ff=8)
    plain.load_state_dict({k: v for k, v in moe.state_dict().items() if "schedule" not in k})
    x = torch.randn(40, D)
    ours, theirs = moe(x).routing, plain(x).routing
    assert theirs.competed_NK is None
    for name in ("logits_NE", "probabilities_NE", "experts_NK", "weights_NK", "counts_E"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    picked = (ours.experts_NK[:, :, None] == ours.competed_NK[:, None, :]).any(1)
    assert 0 < picked.float().mean() < 1  # what a picture of the agreement is made from


def test_the_losses_of_a_competition_are_those_of_its_winners() -> None:
    moe, x = layer(alpha=0.4, diversity="cosine", router_z=0.1), torch.randn(40, D)
    fed = moe(x)
    winners, weights, outputs = compete(moe.experts, x, 2)
    router = moe.gate(x).softmax(-1)
    assert set(fed.losses) == {"balance", "router_z", "distillation", "diversity"}
    expected = distillation_loss(router, winners, weights, 0.4)
    torch.testing.assert_close(fed.losses["distillation"], expected)
    torch.testing.assert_close(fed.losses["diversity"], diversity_loss(outputs, "cosine"))
    expected = balance_loss(router, fed.routing.counts_E)
    torch.testing.assert_close(fed.losses["balance"], expected)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_router_of_equation_1_is_a_softmax_whatever_the_normalisation(
    normalisation: str,
) -> None:
    moe = layer(normalisation=normalisation, top_k=E if normalisation == "dense" else 2)
    x = torch.randn(40, D)
    fed, competition = moe(x), compete(moe.experts, x, moe.top_k)
    expected = distillation_loss(moe.gate(x).softmax(-1), *competition[:2])
    torch.testing.assert_close(fed.losses["distillation"], expected)


def test_without_competition_it_is_a_mixture_whose_lessons_are_zero() -> None:
    moe, plain = layer(competing=False), MoE(D, num_experts=E, d_ff=8)
    plain.load_state_dict({k: v for k, v in moe.state_dict().items() if "schedule" not in k})
    x = torch.randn(3, 5, D)
    ours, theirs = moe(x), plain(x)
    assert torch.equal(ours.output, theirs.output)
    assert ours.routing.competed_NK is None
    assert ours.losses == {"balance": theirs.losses["balance"], "distillation": 0, "diversity": 0}


def test_evaluation_never_competes() -> None:
    moe, x = layer(), torch.randn(30, D)
    assert moe(x).routing.competed_NK is not None
    fed = moe.eval()(x)
    assert fed.routing.competed_NK is None
    assert fed.losses == {}
    assert moe.schedule.is_on  # training goes on where it was
    routed = moe.mix(x, moe.route(x))
    assert torch.equal(fed.output, routed)


def test_before_a_plan_is_made_nothing_competes() -> None:
    moe = CompeteSMoE(D, num_experts=E, warmup=0.0, omega=1.0)
    assert moe(torch.randn(5, D)).routing.competed_NK is None


def test_in_a_competition_the_router_learns_of_every_expert_and_winners_learn() -> None:
    moe = layer(balance=0.0)
    with torch.no_grad():
        moe.experts.contract_bias[3] = -50.0  # pyright: ignore
    fed = moe(torch.randn(60, D))
    assert (fed.routing.competed_NK != 3).all()
    (fed.output.square().mean() + sum(fed.losses.values())).backward()
    for parameter in moe.gate.parameters():
        assert parameter.grad is not None
        assert (parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad).ne(0).all()
    won = fed.routing.competed_NK.unique()
    for parameter in moe.experts.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[won].flatten(1).abs().sum(1) > 0).all()
        assert (parameter.grad[3] == 0).all()


def test_without_competition_experts_that_are_not_chosen_learn_nothing() -> None:
    moe = layer(competing=False, balance=0.0)
    with torch.no_grad():
        moe.gate.bias[3] = -1e4  # pyright: ignore
    fed = moe(torch.randn(60, D))
    (fed.output.square().mean() + sum(fed.losses.values())).backward()
    for parameter in (*moe.experts.parameters(), *moe.gate.parameters()):
        assert parameter.grad is not None
        assert (parameter.grad[3] == 0).all()
        assert parameter.grad[:3].abs().sum() > 0


def test_the_router_has_gradients_also_where_its_lesson_weighs_nothing() -> None:
    moe = layer(gamma=0.0, beta=0.0, balance=0.0)
    assert loss_weights(moe) == {"distillation": 0.0}
    fed = moe(torch.randn(9, D))
    assert set(fed.losses) == {"distillation"}
    (fed.output.sum() + 0.0 * fed.losses["distillation"]).backward()
    assert all(p.grad is not None for p in moe.parameters())


def test_weights_are_stated_once_for_all_layers() -> None:
    network = nn.ModuleList([layer(), layer()])
    weights = {"balance": 0.01, "distillation": 0.01, "diversity": 0.005}
    assert loss_weights(network) == weights


def test_a_router_learns_the_policy_of_the_competition() -> None:
    torch.manual_seed(1)
    moe = layer(gamma=1.0, beta=0.0, balance=0.0)
    for parameter in moe.experts.parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(moe.gate.parameters(), lr=0.05)
    x = torch.randn(400, D)

    def agreement() -> float:
        routing = moe(x).routing
        same = routing.experts_NK[:, :, None] == routing.competed_NK[:, None, :]
        return same.any(1).float().mean().item()

    before = agreement()
    for _ in range(150):
        optimizer.zero_grad()
        moe(x).losses["distillation"].backward()
        optimizer.step()
    assert agreement() > max(0.75, before + 0.15)


@pytest.mark.parametrize("affinity", ["softplus", "silu", "relu", "sigmoid", "norm"])
@pytest.mark.parametrize("top_k", [1, 2, None])
def test_every_affinity_and_number_of_winners_trains(affinity: str, top_k: int | None) -> None:
    moe = layer(affinity=affinity, top_k=top_k)
    fed = moe(torch.randn(50, D))
    (fed.output.square().mean() + sum(fed.losses.values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in moe.parameters())


def test_one_expert_competes_with_itself() -> None:
    moe, x = layer(num_experts=1, top_k=1), torch.randn(9, D)
    fed = moe(x)
    torch.testing.assert_close(fed.output, moe.experts.every(x)[:, 0])
    assert fed.losses["distillation"].item() == pytest.approx(0.0)
    assert fed.losses["diversity"] == 0


def test_where_all_win_the_affinities_weigh() -> None:
    moe, x = layer(top_k=None), torch.randn(9, D)
    every = moe.experts.every(x)
    shares = affinities(every) / affinities(every).sum(1, keepdim=True)
    expected = (shares[:, :, None] * every).sum(1)
    torch.testing.assert_close(moe(x).output, expected)


def test_shared_experts_work_beside_the_winners() -> None:
    moe, x = layer(shared_experts=1), torch.randn(9, D)
    assert moe.shared is not None
    alone = compete(moe.experts, x, 2).mixture
    torch.testing.assert_close(moe(x).output, alone + moe.shared(x))


def test_a_selection_bias_counts_what_the_gate_would_choose() -> None:
    moe = layer(bias_step=0.1)
    fed = moe(torch.randn(50, D))
    assert moe.selection_bias is not None
    assert torch.equal(moe.selection_bias.counts_E, fed.routing.counts_E)
    after_step(moe)
    assert moe.selection_bias.bias_E.abs().sum() > 0


def test_nan_tokens_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="logits are NaN for 2 of 2 tokens"):
        layer()(torch.full((2, D), torch.nan))


@pytest.mark.parametrize("computing", ["loop", "all", "grouped"])
def test_bf16_mixed_precision_competes_and_trains_everything(computing: str) -> None:
    moe, x = layer(computing=computing), torch.randn(3, 50, D)
    exact = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        fed = moe(x)
    assert {loss.dtype for loss in fed.losses.values()} == {torch.float32}
    assert fed.routing.competed_NK is not None
    same = (fed.routing.competed_NK == exact.routing.competed_NK).all(1).view(3, 50)
    assert same.float().mean() > 0.9
    torch.testing.assert_close(fed.output.float()[same], exact.output[same], rtol=0.1, atol=0.05)
    (fed.output.float().square().sum() + sum(fed.losses.values())).backward()
    for parameter in moe.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert moe.experts.expand_weight.grad.abs().sum() > 0  # pyright: ignore


def test_an_expert_that_wins_nothing_stops_no_competition_in_bf16() -> None:
    moe = layer(computing="loop")
    with torch.no_grad():
        moe.experts.get_parameter("contract_bias")[0] -= 100
    with torch.autocast("cpu", torch.bfloat16):
        fed = moe(torch.randn(3, 50, D))
    assert fed.routing.counts_E[0] > 0
    assert not (fed.routing.competed_NK == 0).any()
    (fed.output.float().square().sum() + sum(fed.losses.values())).backward()
    grad = moe.experts.get_parameter("expand_weight").grad
    assert grad is not None
    assert (grad[0] == 0).all()
    assert (grad[1:] != 0).any()


class OneLinear(Experts):
    """Experts of one's own, whose weights autocast narrows and keeps."""

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.map = nn.Linear(d_model, num_experts * d_model)

    def every(self, x_ND: torch.Tensor) -> torch.Tensor:
        return self.map(x_ND).unflatten(1, (self.num_experts, -1))


def test_weights_narrowed_for_measuring_are_not_those_that_are_trained() -> None:
    moe = layer(experts=OneLinear, computing="all")
    with torch.autocast("cpu", torch.bfloat16):
        moe(torch.randn(20, D)).output.float().square().sum().backward()
    (weight, bias) = moe.experts.parameters()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    assert bias.grad is not None


COMPILED = """
import torch
from tsattn.nn.moe import CompeteSMoE, plan_competitions
for computing in ("all", "grouped"):
    torch.manual_seed(0)
    moe = CompeteSMoE(16, num_experts=4, d_ff=16, warmup=0.0, omega=1.0, computing=computing)
    plan_competitions(moe, 10)
    compiled = torch.compile(moe, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 7, 16)
    for competing in (True, False):
        moe.schedule.is_on = competing
        one, other = compiled(x), moe(x)
        torch.testing.assert_close(one.output, other.output)
        assert (one.routing.competed_NK is not None) == competing
        for name, loss in other.losses.items():
            torch.testing.assert_close(one.losses[name], loss)
        a = torch.autograd.grad(one.output.sum(), moe.experts.expand_weight)
        b = torch.autograd.grad(other.output.sum(), moe.experts.expand_weight)
        torch.testing.assert_close(a, b)
print("whole")
"""


def test_both_kinds_of_steps_are_compiled_in_one_graph_each() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.stdout == "whole\n", done.stderr


NETWORKS: dict[str, Callable[[object], ForecastNetwork]] = {
    "PatchTST": lambda factory: PatchTST(
        2, 24, 6, d_model=8, num_heads=2, d_ff=16, feedforward=factory, value_activation="tanh",  # pyright: ignore
    ),
    "recomputing": lambda factory: PatchTST(
        2, 24, 6, d_model=8, num_heads=2, d_ff=16, feedforward=factory, recompute=True,  # pyright: ignore
    ),
    "Transformer": lambda factory: EncoderDecoderTransformer(
        2, 24, 6, d_model=8, num_heads=2, d_ff=16, calendar_features=0, feedforward=factory,  # pyright: ignore
        value_activation="silu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_of_a_network_take_turns(name: str) -> None:
    network = NETWORKS[name](
        partial(CompeteSMoE, gate=QuadraticMonomialGate, num_experts=E, omega=0.3, max_layers=1)
    )
    plan_competitions(network, 40, seed=2)
    competed: list[nn.Module] = []

    def watch(module: nn.Module, inputs: Any, fed: Any) -> None:
        if fed.routing.competed_NK is not None:
            competed.append(module)

    for part in network.modules():
        if isinstance(part, CompeteSMoE):
            part.register_forward_hook(watch)
    per_step: list[int] = []
    for _ in range(20):
        before = len(competed)
        forecast = network(torch.randn(3, 24, 2))
        lessons = forecast.losses["distillation"] + forecast.losses["diversity"]
        per_step.append(len(competed) - before)
        assert (lessons != 0) == bool(per_step[-1])
        (forecast.mean.square().mean() + lessons).backward()
        after_step(network)
    assert max(per_step) == 1
    assert len(set(competed)) == 3
    assert all(p.grad is not None for p in network.parameters())


def test_it_is_one_line_among_the_routers_of_the_paper() -> None:
    moe = baseline("CompeteSMoE", num_experts=4, omega=0.1)(D)
    assert isinstance(moe, CompeteSMoE)
    assert moe.schedule.settings.omega == 0.1


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "gamma must not be negative"),
        ({"alpha": -0.1}, "alpha must not be negative"),
        ({"beta": -0.1}, "beta must not be negative"),
        ({"omega": 2.0}, "omega must be between 0 and 1"),
        ({"affinity": "tanh"}, "unknown affinity 'tanh'; expected one of softplus, silu"),
        ({"diversity": "rows"}, "unknown diversity 'rows'; expected one of matrix, cosine"),
        ({"top_k": 9}, "got top_k=9 of 8 experts"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompeteSMoE(D, **options)  # pyright: ignore
