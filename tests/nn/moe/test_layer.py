"""The whole layer: what it returns, what it trains, and what it refuses."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tsattn.nn import FeedForward
from tsattn.nn.auxiliary import Fed, feed, loss_weights, summed
from tsattn.nn.moe import (
    BASELINES,
    CopyExperts,
    DenseToSparse,
    DenseToSparseGate,
    FeedForwardExperts,
    HierarchicalGate,
    LinearExperts,
    LinearGate,
    MixedExperts,
    MoE,
    MoEFeedForward,
    QuadraticMonomialGate,
    SigmoidGate,
    balance_loss,
    baseline,
    select,
)
from tsattn.nn.stepping import after_step

D, E = 16, 4


def layer(top_k: int | None = 2, **options: object) -> MoEFeedForward:
    gate = QuadraticMonomialGate(D, E, rank=2)
    return MoEFeedForward(D, gate, FeedForwardExperts(D, E, 8), top_k, **options)  # pyright: ignore


def copy_dense(dense: FeedForward, experts: FeedForwardExperts) -> None:
    with torch.no_grad():
        experts.expand_weight.copy_(dense.expand.weight)
        experts.expand_bias.copy_(dense.expand.bias)
        experts.contract_weight.copy_(dense.contract.weight)
        experts.contract_bias.copy_(dense.contract.bias)


def test_a_layer_is_the_weighted_sum_of_its_experts() -> None:
    moe, x = layer(), torch.randn(3, 5, D)
    fed = moe(x)
    tokens = x.flatten(0, 1)
    selection = select(moe.gate(tokens), 2)
    every = moe.experts.every(tokens)
    expected = torch.stack(
        [
            sum((w * every[n, e] for e, w in zip(chosen, weights, strict=True)), torch.zeros(D))
            for n, (chosen, weights) in enumerate(
                zip(selection.experts_NK.tolist(), selection.weights_NK, strict=True)
            )
        ]
    )
    torch.testing.assert_close(fed.output, expected.view_as(x))
    assert torch.equal(fed.routing.experts_NK, selection.experts_NK)
    assert fed.routing.counts_E.sum() == 3 * 5 * 2
    assert fed.routing.dropped == 0


@pytest.mark.parametrize("computing", ["auto", "loop", "grouped", "all"])
def test_one_expert_is_the_dense_feed_forward(computing: str) -> None:
    dense, x = FeedForward(D, 32), torch.randn(3, 5, D)
    experts = FeedForwardExperts(D, 1, 32)
    copy_dense(dense, experts)
    moe = MoEFeedForward(D, LinearGate(D, 1), experts, 1, computing=computing)
    torch.testing.assert_close(moe(x).output, dense(x))


@pytest.mark.parametrize("computing", ["auto", "loop", "grouped", "all"])
def test_equal_experts_that_all_work_are_the_dense_feed_forward(computing: str) -> None:
    dense, x = FeedForward(D, 32), torch.randn(3, 5, D)
    experts = FeedForwardExperts(D, E, 32)
    copy_dense(dense, experts)
    moe = MoEFeedForward(D, LinearGate(D, E), experts, None, computing=computing)
    torch.testing.assert_close(moe(x).output, dense(x), rtol=1e-4, atol=1e-5)


def test_shared_experts_work_for_every_token() -> None:
    moe = MoE(D, num_experts=E, top_k=2, active_d_ff=24, shared_experts=1)
    assert isinstance(moe.shared, FeedForward)
    assert moe.shared.expand.out_features == 8
    x = torch.randn(6, D)
    routed = moe.mix(x, moe.route(x)) - moe.shared(x)
    moe_alone = MoEFeedForward(D, moe.gate, moe.experts, 2)
    torch.testing.assert_close(routed, moe_alone(x).output, rtol=1e-4, atol=1e-5)


def test_shared_experts_have_the_activation_of_the_others() -> None:
    moe = MoE(D, num_experts=E, active_d_ff=24, shared_experts=2, activation="tanh").eval()
    assert moe.shared is not None
    x = torch.randn(6, D)
    (single,) = moe.shared.children()
    assert isinstance(single, FeedForwardExperts)
    assert single.activation == "tanh"
    torch.testing.assert_close(moe.shared(x), single.every(x)[:, 0])


@pytest.mark.parametrize("computing", ["loop", "grouped", "all"])
def test_gradients_reach_the_gate_and_the_chosen_experts_alone(computing: str) -> None:
    gate = LinearGate(D, E)
    with torch.no_grad():
        gate.bias[3] = -1e4  # nobody chooses the last expert
    moe = MoEFeedForward(D, gate, FeedForwardExperts(D, E, 8), 2, balance=0, computing=computing)
    moe(torch.randn(40, D)).output.square().sum().backward()
    for parameter in moe.experts.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[:3].flatten(1).abs().sum(1) > 0).all()
        assert (parameter.grad[3] == 0).all()
    assert gate.weight.grad is not None
    assert (gate.weight.grad[:3].abs().sum(1) > 0).all()
    assert (gate.weight.grad[3] == 0).all()


def test_the_balance_loss_trains_the_gate_and_no_expert() -> None:
    moe = layer(balance=0.1, router_z=0.2)
    losses = moe(torch.randn(40, D)).losses
    assert set(losses) == {"balance", "router_z"}
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in moe.gate.parameters())
    assert all(p.grad is None for p in moe.experts.parameters())


def test_losses_are_those_of_the_routing_and_none_in_evaluation() -> None:
    moe = layer(router_z=0.5)
    fed = moe(torch.randn(40, D))
    expected = balance_loss(fed.routing.probabilities_NE, fed.routing.counts_E)
    torch.testing.assert_close(fed.losses["balance"], expected)
    torch.testing.assert_close(
        fed.losses["router_z"], fed.routing.logits_NE.logsumexp(-1).square().mean()
    )
    assert moe.eval()(torch.randn(40, D)).losses == {}
    assert layer(balance=0.0)(torch.randn(4, D)).losses == {}


def test_weights_of_losses_are_stated_by_the_layers() -> None:
    network = nn.ModuleList(
        [layer(balance=0.3, router_z=0.1), FeedForward(D, 4), layer(balance=0.3)]
    )
    assert loss_weights(network) == {"balance": 0.3, "router_z": 0.1}
    with pytest.raises(ValueError, match=r"'balance' with 0\.3 and with 0\.4"):
        loss_weights(nn.ModuleList([layer(balance=0.3), layer(balance=0.4)]))
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert summed({"a": one}, {"a": two, "b": one}) == {"a": 3.0, "b": 1.0}
    assert feed(nn.Identity(), one) == Fed(one, {})


def test_capacity_drops_in_training_only_and_counts_what_it_drops() -> None:
    moe, x = layer(1, capacity=0.5), torch.randn(64, D)
    fed = moe(x)
    assert fed.routing.dropped > 0
    assert (fed.output == 0).all(-1).sum() == fed.routing.dropped
    assert (fed.routing.weights_NK == 0).sum() == fed.routing.dropped
    assert moe.eval()(x).routing.dropped == 0


def test_a_selection_bias_evens_out_the_load() -> None:
    gate = SigmoidGate(D, E)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([1.5, 0.0, 0.0, -1.5]))
    moe = MoEFeedForward(D, gate, CopyExperts(D, E), 1, bias_step=0.02)
    x = torch.randn(400, D)
    before = moe(x).routing.counts_E.float().std()
    for _ in range(60):
        moe(x)
        after_step(moe)
    assert moe.eval()(x).routing.counts_E.float().std() < before / 4
    moe(x)
    assert moe.selection_bias is not None
    assert moe.selection_bias.counts_E.sum() == 0


def test_a_gate_that_becomes_sparse_uses_all_experts_until_then() -> None:
    gate = DenseToSparse(LinearGate(D, E), 2.0, 0.5, steps=2)
    moe = MoEFeedForward(D, gate, FeedForwardExperts(D, E, 8), 1)
    used: list[int] = []
    for _ in range(4):
        used.append(moe(torch.randn(8, D)).routing.experts_NK.shape[1])
        after_step(moe)
    assert used == [E, E, 1, 1]


@pytest.mark.parametrize("level", ["groups_gate", "experts_gate"])
def test_a_hierarchy_is_as_dense_as_its_gates(level: str) -> None:
    falling = partial(DenseToSparseGate, steps=2)
    gate = partial(HierarchicalGate, **{level: falling})  # pyright: ignore
    moe = MoE(D, gate, num_experts=E, top_k=1)
    wrapped = MoE(D, partial(DenseToSparseGate, gate=gate, steps=1), num_experts=E, top_k=1)
    used: list[tuple[int, int]] = []
    for _ in range(4):
        routings = [layer(torch.randn(8, D)).routing for layer in (moe, wrapped)]
        used.append((routings[0].experts_NK.shape[1], routings[1].experts_NK.shape[1]))
        after_step(moe)
        after_step(wrapped)
    assert used == [(E, E), (E, E), (1, 1), (1, 1)]


def test_light_experts_are_the_last_ones() -> None:
    moe = MoE(D, num_experts=6, zero_experts=1, copy_experts=1, constant_experts=2, active_d_ff=8)
    assert isinstance(moe.experts, MixedExperts)
    x = torch.randn(5, D)
    every = moe.experts.every(x)
    assert (every[:, 2] == 0).all()
    assert (every[:, 3] == x).all()
    assert (every[:, 4:].std(0) < 1e-6).all()
    assert moe(x).output.shape == x.shape
    assert MoE(D, num_experts=2, copy_experts=2)(x).output.shape == x.shape


def test_active_experts_share_the_hidden_units_of_the_dense_feed_forward() -> None:
    def hidden(**options: object) -> int:
        experts = MoE(D, active_d_ff=128, **options).experts  # pyright: ignore
        assert isinstance(experts, FeedForwardExperts)
        return experts.d_ff

    assert hidden() == 64
    assert hidden(shared_experts=2) == 32
    assert hidden(top_k=None) == 16
    assert hidden(d_ff=7) == 7


@pytest.mark.parametrize("router", BASELINES)
def test_a_router_of_the_papers_is_one_line(router: str) -> None:
    moe = baseline(router, num_experts=4, active_d_ff=24)(D)
    fed = moe(torch.randn(9, D))
    (fed.output.square().mean() + sum(fed.losses.values())).backward()
    assert all(p.grad is not None for p in moe.parameters())
    if router not in ("sigma-MoE",):
        torch.testing.assert_close(fed.routing.weights_NK.sum(-1), torch.ones(9))


def test_routers_differ_where_their_papers_do() -> None:
    assert baseline("sigma-MoE")(D).normalisation == "sigmoid"
    assert baseline("SharedExpert-V3")(D).normalisation == "normalised_sigmoid"
    assert baseline("SharedExpert-V3")(D).selection_bias is not None
    assert baseline("SMoE")(D).shared is None
    with pytest.raises(ValueError, match="unknown router 'MoE'; expected one of SMoE, XMoE"):
        baseline("MoE")


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_a_linear_expert_layer_takes_any_experts(activation: str) -> None:
    moe = MoE(D, experts=LinearExperts, num_experts=4, activation=activation)
    assert isinstance(moe.experts, LinearExperts)
    moe = MoE(D, experts=partial(FeedForwardExperts, d_ff=5, activation="relu"), num_experts=4)
    assert isinstance(moe.experts, FeedForwardExperts)
    assert (moe.experts.d_ff, moe.experts.activation) == (5, "relu")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: layer(5), "got top_k=5 of 4 experts"),
        (lambda: MoE(D, num_experts=2, top_k=3), "got top_k=3 of 2 experts"),
        (lambda: layer(balance=-1.0), "balance must not be negative"),
        (lambda: layer(bias_step=-1.0), "bias_step must not be negative"),
        (lambda: layer(capacity=0.0), "capacity must be positive"),
        (lambda: layer(computing="quick"), "unknown computing 'quick'"),
        (lambda: layer(normalisation="dense"), "chooses all 4 experts, got top_k=2"),
        (
            lambda: MoEFeedForward(D, LinearGate(D, 3), CopyExperts(D, 4)),
            r"LinearGate of \(16, 3\) and CopyExperts of \(16, 4\)",
        ),
        (
            lambda: MoEFeedForward(8, LinearGate(D, 4), CopyExperts(D, 4)),
            "must have d_model=8",
        ),
        (lambda: MoE(D, num_experts=2, copy_experts=3), "counted among num_experts=2"),
        (lambda: MoE(D, num_experts=8, top_k=8, active_d_ff=4), "4 hidden units cannot be shared"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_gate_of_ones_own_must_return_logits_for_every_expert() -> None:
    moe = MoEFeedForward(D, nn.Linear(D, 3), CopyExperts(D, E))
    with pytest.raises(ValueError, match=r"Linear must return logits of \[tokens 7, experts 4\]"):
        moe(torch.randn(7, D))


def test_experts_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match=r"subclass of tsattn\.nn\.moe\.Experts, got Linear"):
        MoE(D, experts=nn.Linear)


def test_nan_tokens_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="logits are NaN for 1 of 3 tokens"):
        layer()(torch.tensor([1.0, torch.nan, 1.0])[:, None].expand(-1, D))


@pytest.mark.parametrize("computing", ["auto", "loop", "grouped", "all"])
def test_bf16_mixed_precision_trains_everything(computing: str) -> None:
    moe, x = layer(computing=computing), torch.randn(3, 50, D)
    with torch.autocast("cpu", torch.bfloat16):
        fed = moe(x)
        assert fed.routing.logits_NE.dtype == torch.float32
        assert fed.routing.weights_NK.dtype == torch.float32
    exact = moe(x).output
    (fed.output.float().square().sum() + fed.losses["balance"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in moe.parameters())
    torch.testing.assert_close(fed.output.float(), exact, rtol=0.1, atol=0.1)


COMPILED = """
import torch
from tsattn.nn.moe import MoE, QuadraticMonomialGate
backend, whole = {backend!r}, {whole!r}
for computing in {computings!r}:
    torch.manual_seed(0)
    moe = MoE(16, QuadraticMonomialGate, num_experts=4, active_d_ff=16, computing=computing)
    compiled = torch.compile(moe, backend=backend, fullgraph=whole)
    x = torch.randn(3, 7, 16)
    for one, other in ((compiled(x), moe(x)),):
        torch.testing.assert_close(one.output, other.output)
        torch.testing.assert_close(one.losses["balance"], other.losses["balance"])
        parameters = list(moe.parameters())
        a = torch.autograd.grad(one.output.square().sum(), parameters)
        b = torch.autograd.grad(other.output.square().sum(), parameters)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
print("same")
"""


def compiled_as_eager(backend: str, computings: Sequence[str], *, whole: bool) -> None:
    """Compile layers in a process of their own, and compare outputs, losses and gradients."""
    script = COMPILED.format(backend=backend, computings=computings, whole=whole)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=290
    )
    assert done.stdout == "same\n", done.stderr


def test_a_layer_is_compiled_in_one_graph_unless_it_loops() -> None:
    compiled_as_eager("aot_eager", ("auto", "all", "grouped"), whole=True)


def test_a_layer_that_loops_is_compiled_in_several_graphs() -> None:
    compiled_as_eager("aot_eager", ("loop",), whole=False)


@pytest.mark.slow
def test_inductor_compiles_a_layer_to_the_same_numbers() -> None:
    compiled_as_eager("inductor", ("auto",), whole=True)


def test_the_order_of_tokens_does_not_matter() -> None:
    moe, x = layer(), torch.randn(30, D)
    shuffle = torch.randperm(30)
    torch.testing.assert_close(moe(x[shuffle]).output, moe(x).output[shuffle])


def test_each_layer_of_a_network_has_parameters_of_its_own() -> None:
    build = baseline("quadratic-monomial", num_experts=4)
    one, two = build(D), build(D)
    pairs = itertools.product(one.parameters(), two.parameters())
    assert all(a is not b for a, b in pairs)


def test_a_hook_sees_the_routing() -> None:
    seen: list[Tensor] = []
    moe = layer()
    moe.register_forward_hook(lambda module, inputs, fed: seen.append(fed.routing.counts_E))
    moe(torch.randn(9, D))
    assert seen[0].sum() == 18
