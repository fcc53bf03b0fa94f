"""Feed-forward experts in one operation: error budget, mask, threads, registration, messages."""

# pyright: reportArgumentType=false, reportCallIssue=false

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, library

from tests.budget import assert_within_budget
from tsattn.ops import VALUE_ACTIVATIONS, expert_feedforward, sort_slots
from tsattn.ops.experts import reference

NAMES = ("expand_weight", "expand_bias", "contract_weight", "contract_bias")
SHAPES = [(53, 16, 32, 1, 1), (47, 16, 48, 3, 2), (700, 48, 32, 4, 2), (1300, 32, 64, 2, 1)]
"""Tokens, width, hidden units, experts, choices of a token."""


def choice(tokens: int, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Slots sorted by expert; of several experts the last one gets none."""
    scores = torch.rand(tokens, experts)
    scores[:, -1] -= float(experts > top_k)
    return sort_slots(scores.topk(top_k).indices, experts)


def inputs(
    tokens: int, width: int, hidden: int, experts: int, top_k: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    drawn = {
        "x": torch.randn(tokens, width),
        "expand_weight": torch.randn(experts, hidden, width) / math.sqrt(width),
        "expand_bias": torch.randn(experts, hidden),
        "contract_weight": torch.randn(experts, width, hidden) / math.sqrt(hidden),
        "contract_bias": torch.randn(experts, width),
    }
    return {name: t.to(dtype) for name, t in drawn.items()} | {"weights": torch.rand(tokens, top_k)}


def operation(order: Tensor, counts: Tensor, seed: Tensor | None, p: float, activation: str):
    number = list(VALUE_ACTIVATIONS).index(activation)

    def run(x: Tensor, weights: Tensor, **parameters: Tensor) -> Tensor:
        four = [parameters[name] for name in NAMES]
        given = (x, weights, order, counts, *four, seed, p, number, True)
        return torch.ops.tsattn.expert_feedforward(*given)[0]

    return run


def plain(order: Tensor, counts: Tensor, seed: Tensor | None, p: float, activation: str):
    def run(x: Tensor, weights: Tensor, **parameters: Tensor) -> Tensor:
        four = tuple(parameters[name] for name in NAMES)
        given = (x, weights, order, counts, four, seed, p, activation)
        return reference.expert_feedforward(*given)

    return run


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_output_and_gradients_stay_within_the_error_budget(
    shape: tuple[int, ...], p: float, dtype: torch.dtype
) -> None:
    tokens, _, _, experts, top_k = shape
    how = (*choice(tokens, experts, top_k), torch.tensor(2**40 + 3) if p else None, p, "gelu")
    given = inputs(*shape, dtype)
    if dtype == torch.float32:
        assert_within_budget(operation(*how), plain(*how), given)
        return
    # weights stay float32, so that the helper's one dtype does not do
    ours, usual, exact = (
        results(run, {name: convert(t) for name, t in given.items()})
        for run, convert in (
            (operation(*how), torch.Tensor.detach),
            (plain(*how), torch.Tensor.detach),
            (plain(*how), torch.Tensor.double),
        )
    )
    for name, truth in exact.items():
        allowed = 2 * (usual[name].double() - truth).norm() + 2**-8 * truth.norm()
        assert (ours[name].double() - truth).norm() <= allowed, name


def results(run, given: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: t.clone().requires_grad_() for name, t in given.items()}
    output = run(**leaves)
    generator = torch.Generator().manual_seed(1)
    above = torch.randn(output.shape, generator=generator).bfloat16().to(output.dtype)
    gradients = torch.autograd.grad(output, list(leaves.values()), above)
    return {"output": output.detach()} | dict(zip(leaves, gradients, strict=True))


@pytest.mark.needs_kernels
@pytest.mark.parametrize("width", [16, 48])
def test_one_token_is_as_exact_as_in_torch(width: int) -> None:
    # too few numbers for an error budget of each draw: squared errors are added up over many
    ours, usual = Counter[str](), Counter[str]()
    for draw in range(100):
        torch.manual_seed(draw)
        how = (*choice(1, 3, 2), torch.tensor(draw), 0.2, "gelu")
        given = inputs(1, width, 32, 3, 2, torch.float32)
        exact = results(plain(*how), {name: t.double() for name, t in given.items()})
        for errors, run in ((ours, operation(*how)), (usual, plain(*how))):
            for name, found in results(run, given).items():
                errors[name] += (found.double() - exact[name]).square().sum().item()
    for name, squares in usual.items():
        assert math.sqrt(ours[name]) <= 2 * math.sqrt(squares), name


@pytest.mark.needs_kernels
@pytest.mark.parametrize("width", [16, 48])
def test_without_tokens_nothing_is_learned(width: int) -> None:
    how = (*choice(0, 3, 2), torch.tensor(5), 0.2, "gelu")
    given = inputs(0, width, 32, 3, 2, torch.float32)
    found = results(operation(*how), given)
    assert found["output"].shape == found["x"].shape == (0, width)
    assert found["weights"].shape == (0, 2)
    for name in NAMES:
        assert torch.equal(found[name], torch.zeros_like(given[name])), name


@pytest.mark.needs_kernels
@pytest.mark.parametrize("activation", VALUE_ACTIVATIONS)
def test_every_activation_stays_within_the_error_budget(activation: str) -> None:
    how = (*choice(90, 3, 2), torch.tensor(5), 0.2, activation)
    given = inputs(90, 32, 16, 3, 2, torch.float32)
    assert_within_budget(operation(*how), plain(*how), given)


def test_the_gradients_of_the_reference_are_those_of_its_formula() -> None:
    order, counts = choice(5, 3, 2)
    drawn = inputs(5, 2, 16, 3, 2, torch.float64)
    given = [t.double().requires_grad_() for t in drawn.values()]

    def run(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, weights: Tensor) -> Tensor:
        four = (w1, b1, w2, b2)
        slots = (order, counts)
        return reference.expert_feedforward(x, weights, *slots, four, torch.tensor(5), 0.4, "tanh")

    assert torch.autograd.gradcheck(run, given)


@pytest.mark.needs_kernels
def test_hidden_units_are_dropped_at_the_rate_and_the_seed_decides() -> None:
    tokens, width, p = 3000, 64, 0.25
    order, counts = choice(tokens, 3, 1)
    identity = torch.eye(width).expand(3, width, width)
    zeros, ones = torch.zeros(3, width), torch.full((3, width), 30.0)  # gelu(30) is 30
    four = (torch.zeros(3, width, width), ones, identity / 30, zeros)

    def kept() -> Tensor:
        x, weights = torch.zeros(tokens, width), torch.ones(tokens, 1)
        return expert_feedforward(x, weights, order, counts, four, p=p, impl="cpu")

    torch.manual_seed(1)
    one, two = kept(), kept()
    torch.manual_seed(1)
    assert torch.equal(kept(), one)
    assert not torch.equal(one, two)
    assert one.count_nonzero().item() == pytest.approx((1 - p) * one.numel(), rel=0.01)
    assert one.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.corrcoef(one[:, :2].T)[0, 1].abs() < 0.1


@pytest.mark.needs_kernels
@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_number_of_threads_changes_nothing(dtype: torch.dtype, width: int) -> None:
    how = (*choice(3000, 4, 2), torch.tensor(3), 0.3, "gelu")
    given = inputs(3000, width, 48, 4, 2, dtype)
    found: list[dict[str, Tensor]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(results(operation(*how), given))
    finally:
        torch.set_num_threads(1)
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name


@pytest.mark.needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_it_is_registered_as_torch_wants_it(p: float) -> None:
    given = inputs(40, 16, 32, 3, 2, torch.float32)
    four = [given[name].requires_grad_() for name in NAMES]
    x, weights = given["x"].requires_grad_(), given["weights"].requires_grad_()
    seed = torch.tensor(4) if p else None
    arguments = (x, weights, *choice(40, 3, 2), *four, seed, p, 2, True)
    library.opcheck(torch.ops.tsattn.expert_feedforward.default, arguments)


@pytest.mark.needs_kernels
def test_nothing_is_kept_where_nothing_is_differentiated() -> None:
    given = inputs(40, 16, 32, 3, 2, torch.float32)
    four = tuple(given[name] for name in NAMES)
    slots = choice(40, 3, 2)
    output = expert_feedforward(given["x"], given["weights"], *slots, four, impl="cpu")
    again = expert_feedforward(given["x"], given["weights"], *slots, four, impl="reference")
    assert not output.requires_grad
    torch.testing.assert_close(output, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 3)}, r"expected tokens \[N, D\]"),
        ({"expand_bias": torch.zeros(3, 4)}, r"expected tokens \[N, D\]"),
        ({"weights": torch.zeros(4, 2)}, r"expected weights \[5, K\]"),
        ({"p": 1.0}, r"p must be in \[0, 1\), got 1.0"),
        ({"activation": "tanhh"}, "unknown activation 'tanhh'; expected one of identity"),
        ({"impl": "sdpa"}, "no impl 'sdpa'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    given = inputs(5, 16, 32, 3, 2, torch.float32) | change
    how = {name: given[name] for name in ("p", "activation", "impl") if name in given}
    four = tuple(given[name] for name in NAMES)
    with pytest.raises(ValueError, match=message):
        expert_feedforward(given["x"], given["weights"], *choice(5, 3, 2), four, **how)


@pytest.mark.parametrize(
    ("width", "hidden", "dtype", "message"),
    [
        (10, 16, torch.float32, "multiples of 16, not 10 and 16"),
        (16, 24, torch.float32, "multiples of 16, not 16 and 24"),
        (16, 16, torch.float64, "not torch.float64"),
    ],
)
def test_the_kernel_refuses_by_name_what_auto_gives_to_torch(
    width: int, hidden: int, dtype: torch.dtype, message: str
) -> None:
    given = inputs(5, width, hidden, 3, 2, dtype)
    four = tuple(given[name] for name in NAMES)
    slots = choice(5, 3, 2)
    assert expert_feedforward(given["x"], given["weights"], *slots, four).dtype == dtype
    with pytest.raises(ValueError, match=message):
        expert_feedforward(given["x"], given["weights"], *slots, four, impl="cpu")
