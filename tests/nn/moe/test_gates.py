"""Gates against the papers' formulas, computed token by token in float64."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.moe import (
    CosineGate,
    DenseToSparse,
    DenseToSparseGate,
    Gate,
    GaussianGate,
    Hierarchical,
    HierarchicalGate,
    LinearGate,
    MoE,
    PerturbedCosineGate,
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    SigmoidGate,
)

D, E = 6, 4
Parameters = dict[str, np.ndarray]


def monomial_low(x: np.ndarray, p: Parameters) -> list[float]:
    return [float((p["query"] @ x) @ (key @ x)) for key in p["key"]]


def polynomial_low(x: np.ndarray, p: Parameters) -> list[float]:
    query = p["query"] @ x + p["query_bias"]
    return [float(query @ (k @ x + b)) for k, b in zip(p["key"], p["key_bias"], strict=True)]


def polynomial(x: np.ndarray, p: Parameters) -> list[float]:
    parts = zip(p["quadratic"], p["linear"], p["bias"], strict=True)
    return [float(x @ a @ x + b @ x + c) for a, b, c in parts]


def monomial(x: np.ndarray, p: Parameters) -> list[float]:
    return [float(x @ a @ x + c) for a, c in zip(p["quadratic"], p["bias"], strict=True)]


def linear(x: np.ndarray, p: Parameters) -> list[float]:
    return [float(w @ x + c) for w, c in zip(p["weight"], p["bias"], strict=True)]


def gaussian(x: np.ndarray, p: Parameters) -> list[float]:
    prior = np.exp(p["log_prior"]) / np.exp(p["log_prior"]).sum()
    logits = []
    for pi, mean, raw in zip(prior, p["mean"], p["log_cholesky"], strict=True):
        factor = np.tril(raw, -1) + np.diag(np.exp(np.diag(raw)))
        covariance = factor @ factor.T
        assert (np.linalg.eigvalsh(covariance) > 0).all()
        distance = (x - mean) @ np.linalg.inv(covariance) @ (x - mean)
        density = np.exp(-distance / 2) / np.sqrt((2 * np.pi) ** D * np.linalg.det(covariance))
        logits.append(math.log(pi * density))
    return logits


def cosine(x: np.ndarray, p: Parameters) -> list[float]:
    y, d = p["projection"] @ x, p.get("perturbation", 0.0)
    norms = [(np.linalg.norm(y) + d) * (np.linalg.norm(e) + d) for e in p["embedding"]]
    parts = zip(p["embedding"], norms, strict=True)
    return [float(e @ y / norm / p["temperature"]) for e, norm in parts]


Formula = Callable[[np.ndarray, Parameters], list[float]]
GATES: list[tuple[Callable[[int, int], Gate], Formula, dict[str, tuple[int, ...]]]] = [
    (LinearGate, linear, {"weight": (E, D), "bias": (E,)}),
    (SigmoidGate, linear, {"weight": (E, D), "bias": (E,)}),
    (
        QuadraticPolynomialGate,
        polynomial,
        {"quadratic": (E, D, D), "linear": (E, D), "bias": (E,)},
    ),
    (QuadraticMonomialGate, monomial, {"quadratic": (E, D, D), "bias": (E,)}),
    (
        lambda d, e: QuadraticPolynomialGate(d, e, rank=3),
        polynomial_low,
        {"query": (3, D), "query_bias": (3,), "key": (E, 3, D), "key_bias": (E, 3)},
    ),
    (
        lambda d, e: QuadraticMonomialGate(d, e, rank=3),
        monomial_low,
        {"query": (3, D), "key": (E, 3, D)},
    ),
    (GaussianGate, gaussian, {"log_prior": (E,), "mean": (E, D), "log_cholesky": (E, D, D)}),
    (
        lambda d, e: CosineGate(d, e, rank=3),
        cosine,
        {"projection": (3, D), "embedding": (E, 3), "temperature": ()},
    ),
    (
        lambda d, e: PerturbedCosineGate(d, e, rank=3, perturbation=0.3),
        cosine,
        {"projection": (3, D), "embedding": (E, 3), "temperature": ()},
    ),
]
IDS = [
    *("linear", "sigmoid", "polynomial", "monomial", "polynomial-3", "monomial-3"),
    *("gaussian", "cosine", "perturbed"),
]


def redrawn(gate: Gate) -> Gate:
    """Move every parameter away from where it begins."""
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return gate


@pytest.mark.parametrize(("build", "formula", "shapes"), GATES, ids=IDS)
def test_a_gate_has_the_formula_of_the_paper(
    build: Callable[[int, int], Gate], formula: Formula, shapes: dict[str, tuple[int, ...]]
) -> None:
    gate, x = redrawn(build(D, E)), torch.randn(11, D)
    state = {name: tensor.double().numpy() for name, tensor in gate.state_dict().items()}
    rows = [formula(row, state) for row in x.double().numpy()]
    expected = torch.tensor(rows, dtype=torch.float64)
    exact = build(D, E).double()
    exact.load_state_dict(gate.state_dict())
    assert gate(x).dtype == torch.float32
    torch.testing.assert_close(exact(x.double()), expected)
    torch.testing.assert_close(gate(x).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("build", "formula", "shapes"), GATES, ids=IDS)
def test_a_gate_has_the_parameters_of_the_table(
    build: Callable[[int, int], Gate], formula: Formula, shapes: dict[str, tuple[int, ...]]
) -> None:
    found = {name: tuple(p.shape) for name, p in build(D, E).named_parameters()}
    assert found == shapes


@pytest.mark.parametrize(("build", "formula", "shapes"), GATES, ids=IDS)
def test_every_parameter_of_a_gate_is_trained(
    build: Callable[[int, int], Gate], formula: Formula, shapes: dict[str, tuple[int, ...]]
) -> None:
    gate = redrawn(build(D, E))
    gate(torch.randn(9, D)).log_softmax(-1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gate.parameters())


@pytest.mark.parametrize(("build", "formula", "shapes"), GATES, ids=IDS)
def test_logits_are_float32_under_autocast(
    build: Callable[[int, int], Gate], formula: Formula, shapes: dict[str, tuple[int, ...]]
) -> None:
    gate, x = build(D, E), torch.randn(5, D)
    expected = gate(x.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = gate(x.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("index", range(len(GATES)), ids=IDS)
def test_parameters_in_half_precision_count_as_float32(index: int, dtype: torch.dtype) -> None:
    single = redrawn(GATES[index][0](D, E)).to(dtype)
    x, seen = torch.randn(5, D, dtype=dtype), list[str]()
    for gate in (single, DenseToSparse(single, 2.0, 1.0, 5), Hierarchical(single, single, E)):
        gate = copy.deepcopy(gate)
        exact = copy.deepcopy(gate).float()
        gate.register_forward_hook(lambda *_: seen.append("called"))
        logits = gate(x)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, exact(x.float()))
        logits.log_softmax(-1)[:, 0].sum().backward()
        assert all(p.dtype == dtype and p.grad is not None for p in gate.parameters())
    assert len(seen) == 3


@pytest.mark.parametrize("width", [4, 64, 512])
@pytest.mark.parametrize("rank", [None, 1, 4])
@pytest.mark.parametrize("kind", [QuadraticPolynomialGate, QuadraticMonomialGate])
def test_quadratic_logits_begin_on_the_scale_of_one_whatever_the_width(
    kind: type[QuadraticPolynomialGate | QuadraticMonomialGate], rank: int | None, width: int
) -> None:
    logits = torch.cat([kind(width, 8, rank=rank)(torch.randn(200, width)) for _ in range(10)])
    assert 0.5 < logits.std().item() < 2.0


@pytest.mark.parametrize("kind", [LinearGate, CosineGate, PerturbedCosineGate])
@pytest.mark.parametrize("width", [4, 256])
def test_other_logits_begin_on_the_scale_of_one(kind: type[Gate], width: int) -> None:
    logits = torch.cat([kind(width, 8)(torch.randn(200, width)) for _ in range(20)])
    assert 0.3 < logits.std().item() < 2.0


def test_a_linear_gate_is_attention_with_identity_query_and_constant_keys() -> None:
    linear_gate, x = LinearGate(D, E), torch.randn(7, D)
    attention = QuadraticPolynomialGate(D, E, rank=D)
    with torch.no_grad():
        attention.query.copy_(torch.eye(D))
        attention.query_bias.zero_()
        attention.key.zero_()  # constant keys do not look at the token
        attention.key_bias.copy_(linear_gate.weight)
    torch.testing.assert_close(attention(x), linear_gate(x))


def test_a_low_rank_gate_is_the_full_one_of_its_product() -> None:
    low, full = QuadraticMonomialGate(D, E, rank=2), QuadraticMonomialGate(D, E)
    with torch.no_grad():
        full.quadratic.copy_(torch.einsum("rd,erf->edf", low.query, low.key))
    x = torch.randn(7, D)
    torch.testing.assert_close(low(x), full(x))


def test_gaussians_of_one_covariance_are_a_linear_gate_in_the_softmax() -> None:
    gaussian_gate, linear_gate = GaussianGate(D, E), LinearGate(D, E)
    with torch.no_grad():
        linear_gate.weight.copy_(gaussian_gate.mean)
        linear_gate.bias.copy_(-gaussian_gate.mean.square().sum(1) / 2)
    x = torch.randn(7, D)
    torch.testing.assert_close(gaussian_gate(x).softmax(-1), linear_gate(x).softmax(-1))


def test_the_full_form_holds_nothing_of_tokens_times_experts_times_width_squared() -> None:
    gate, x = QuadraticMonomialGate(64, 8), torch.randn(512, 64)
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        gate(x).sum().backward()
    assert max(saved) <= 512 * 8 * 64


@pytest.mark.parametrize(("decay", "middle"), [("geometric", 1.0), ("linear", 2.125)])
def test_a_temperature_falls_from_start_to_end(decay: str, middle: float) -> None:
    inner, x = LinearGate(D, E), torch.randn(7, D)
    gate = DenseToSparse(inner, start=4.0, end=0.25, steps=4, decay=decay)  # pyright: ignore
    seen = []
    for step in range(7):
        assert gate.dense == (step < 4)
        tau = gate.temperature().item()
        torch.testing.assert_close(gate(x), inner(x) / tau)
        seen.append(tau)
        gate.after_step()
    assert seen[0] == 4.0
    assert seen[2] == pytest.approx(middle)
    assert seen[4:] == [0.25, 0.25, 0.25]
    assert seen == sorted(seen, reverse=True)


def test_the_steps_of_a_temperature_are_part_of_the_state() -> None:
    gate = DenseToSparseGate(D, E, start=4.0, end=0.5, steps=3)
    for _ in range(3):
        gate.after_step()
    other = DenseToSparseGate(D, E, start=4.0, end=0.5, steps=3)
    other.load_state_dict(gate.state_dict())
    assert not other.dense
    assert other.temperature().item() == pytest.approx(0.5)


def test_a_hierarchy_multiplies_the_group_by_the_expert_within_it() -> None:
    groups, experts = LinearGate(D, 2), QuadraticMonomialGate(D, 6, rank=2)
    gate, x = Hierarchical(groups, experts, 2), torch.randn(7, D)
    p_group, logits = groups(x).double().softmax(-1), experts(x).double()
    for token in range(7):
        for expert in range(6):
            group = expert // 3
            inside = logits[token, 3 * group : 3 * group + 3]
            within = logits[token, expert].exp() / inside.exp().sum()
            expected = p_group[token, group] * within
            assert gate(x)[token, expert].exp().item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(gate(x).exp().sum(-1), torch.ones(7))
    torch.testing.assert_close(gate(x).softmax(-1), gate(x).exp())


@pytest.mark.parametrize("kind", [CosineGate, PerturbedCosineGate])
def test_a_token_of_zeros_leaves_the_gradients_of_cosines_finite(kind: type[CosineGate]) -> None:
    gate, x = kind(D, E), torch.randn(5, D)
    x[2] = 0.0
    x.requires_grad_()
    logits = gate(x)
    assert (logits[2] == 0).all()
    logits.square().sum().backward()
    logits = gate(x)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gate.parameters())
    assert x.grad is not None
    assert x.grad.abs().max() < 1e4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuadraticMonomialGate(4, 2, rank=5), "got rank=5 for d_model=4"),
        (lambda: CosineGate(4, 2, rank=0), "rank must be between 1 and d_model"),
        (lambda: LinearGate(4, 0), "at least 1, got d_model=4, num_experts=0"),
        (lambda: PerturbedCosineGate(4, 2, perturbation=0.0), "perturbation must be positive"),
        (lambda: HierarchicalGate(4, 8, groups=3), "8 experts cannot be divided into 3"),
        (lambda: HierarchicalGate(4, 8, groups=0), "groups must be at least 1"),
        (lambda: Hierarchical(LinearGate(4, 3), LinearGate(4, 8), 2), r"\(4, 2\), got \(4, 3\)"),
        (lambda: DenseToSparseGate(4, 2, start=1.0, end=2.0), "temperature must fall"),
        (lambda: DenseToSparseGate(4, 2, end=0.0), "temperature must fall"),
        (lambda: DenseToSparseGate(4, 2, steps=0), "at least one step"),
    ],
)
def test_a_gate_that_cannot_be_is_refused_in_words(build: Callable[[], Gate], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.unchecked
def test_an_unknown_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown decay 'cosine'"):
        DenseToSparse(LinearGate(4, 2), 2.0, 1.0, 3, "cosine")  # pyright: ignore


def test_something_else_than_a_gate_cannot_be_wrapped() -> None:
    with pytest.raises(TypeError, match="expected a gate"):
        DenseToSparse(nn.Linear(4, 2), 2.0, 1.0, 3)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "build",
    [
        lambda: MoE(16, gate="LinearGate"),  # pyright: ignore
        lambda: DenseToSparseGate(16, 4, gate="LinearGate"),  # pyright: ignore
        lambda: HierarchicalGate(16, 4, groups_gate="LinearGate"),  # pyright: ignore
        lambda: HierarchicalGate(16, 4, experts_gate=LinearGate(16, 4)),
    ],
)
def test_a_name_or_a_built_gate_is_no_factory_of_gates(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(TypeError, match=r"gate=LinearGate, or a .*got '?LinearGate"):
        build()


def test_sigmoid_scores_do_not_compete() -> None:
    gate, x = SigmoidGate(D, E), torch.randn(7, D)
    assert gate.normalisation == "sigmoid"
    torch.testing.assert_close(gate(x), F.linear(x, gate.weight, gate.bias))
