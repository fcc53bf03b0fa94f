import math
from typing import Any

import pytest
import torch
from torch import Tensor, library
from torch.nn import functional as F

from tests.budget import assert_within_budget
from tsattn.ops import add_dropout, build, dropout, gelu_dropout
from tsattn.ops.dropout import philox

IMPLS = ["reference", pytest.param("cpu", marks=pytest.mark.needs_kernels)]
SHAPES = [(1,), (7,), (256,), (257,), (3, 42, 43), (2, 0), (5, 64, 40)]


@pytest.fixture(autouse=True)
def _kernels(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("needs_kernels") and not build.is_ready():
        pytest.skip(build.status().reason)


def test_the_generator_gives_the_published_numbers() -> None:
    """Philox4x32-7 of the zero counter and key, from the known answers of Random123."""
    words = (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)
    numbers = [words[part % 4] >> 8 * (part // 4) & 0xFF for part in range(16)]
    for limit in range(256):
        keep = philox.keep_groups(torch.tensor(0), torch.tensor(0), limit / 256)
        assert keep.shape == (16, 16)
        assert keep[:, 0].tolist() == [number >= limit for number in numbers]


def test_a_rate_between_two_bytes_is_met_by_a_share_of_the_groups() -> None:
    p = (51 + 0.25) / 256
    groups = torch.arange(20_000)
    extra = [
        philox._group_threshold(torch.tensor(seed), groups, p) - 51  # pyright: ignore[reportPrivateUsage]
        for seed in (0, 2**62 + 5)
    ]
    for share in (*extra, extra[0] * extra[1] * 4):
        assert set(share.unique().tolist()) <= {0, 1, 4}
        assert share.float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9999999])
def test_what_is_kept_is_scaled_by_the_rate_that_is_used(p: float) -> None:
    kept = 1 - philox.threshold(p) / 65536
    assert kept == pytest.approx(1 - p, abs=2**-16)
    assert philox.keep_scale(p) * kept == pytest.approx(1)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("seed", [0, 1, 2**40 + 7, 2**63 - 2])
@pytest.mark.parametrize("p", [0.001, 0.3, 0.95])
def test_kernel_and_reference_draw_the_same_mask(seed: int, p: float) -> None:
    number = torch.tensor(seed)
    drawn = torch.ops.tsattn.dropout(torch.ones(100_003), number, p)
    expected = philox.keep_flat(number, 100_003, p) * philox.keep_scale(p)
    torch.testing.assert_close(drawn, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_rate_is_right_and_the_mean_is_kept(impl: str) -> None:
    count, p = 400_000, 0.2
    y = dropout(torch.ones(count), p, impl=impl)
    deviation = math.sqrt(p * (1 - p) / count)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=5 * deviation)
    assert y.mean().item() == pytest.approx(1.0, abs=6 * deviation / (1 - p))
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_calls_are_independent_and_the_seed_of_torch_decides(impl: str) -> None:
    x = torch.ones(100_000)
    first, second = (dropout(x, 0.5, impl=impl) for _ in range(2))
    torch.manual_seed(0)
    again = dropout(x, 0.5, impl=impl)
    assert torch.equal(first, again)
    assert (first == second).float().mean().item() == pytest.approx(0.5, abs=0.01)
    for lag in (1, 16, 256):
        agreeing = (first[lag:] == first[:-lag]).float().mean().item()
        assert agreeing == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES[:-2] + SHAPES[-1:], ids=str)
def test_outputs_and_gradients_stay_within_the_error_budget(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    inputs = {"x": torch.randn(shape).to(dtype), "residual": torch.randn(shape).to(dtype)}
    p = 0.3

    def ours(x: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        gelu = gelu_dropout(x, p, impl=impl)
        return gelu, add_dropout(residual, x, p, impl=impl), dropout(x * residual, p, impl=impl)

    def plain(x: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        keep = [
            (philox.keep_flat(philox.draw_seed(), x.numel(), p) * philox.keep_scale(p))
            .view(shape)
            .to(x.dtype)
            for _ in range(3)
        ]
        return F.gelu(x) * keep[0], residual + x * keep[1], x * residual * keep[2]

    assert_within_budget(ours, plain, inputs)


@pytest.mark.needs_kernels
@pytest.mark.parametrize("name", ["dropout", "add", "gelu"])
def test_strides_threads_and_empty_tensors_change_nothing(name: str) -> None:
    x, residual = torch.randn(6, 50, 40), torch.randn(6, 50, 40)
    whole = run(name, x, residual)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(run(name, strided, residual), whole)
    torch.set_num_threads(2)
    try:
        assert torch.equal(run(name, x, residual), whole)
    finally:
        torch.set_num_threads(1)
    assert run(name, x[:0], residual[:0]).shape == (0, 50, 40)


@pytest.mark.needs_kernels
def test_a_float32_residual_beside_a_bfloat16_branch_stays_float32() -> None:
    x = torch.randn(300).bfloat16().requires_grad_()
    residual = torch.randn(300, requires_grad=True)
    y = add_dropout(residual, x, 0.4, impl="cpu")
    assert y.dtype == torch.float32
    gradients = torch.autograd.grad(y.sum(), (residual, x))
    assert [g.dtype for g in gradients] == [torch.float32, torch.bfloat16]
    kept = gradients[1] != 0
    torch.testing.assert_close(y, residual + x.float() * kept * philox.keep_scale(0.4))
    other = add_dropout(residual.bfloat16(), x.float(), 0.4, impl="cpu")
    assert other.dtype == torch.float32


@pytest.mark.needs_kernels
def test_the_gelu_keeps_its_argument_and_the_others_keep_nothing() -> None:
    x = torch.randn(4096, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(0 if tensor is x or tensor.data_ptr() == x.data_ptr() else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gelu_dropout(x, 0.5, impl="cpu")
        dropout(x, 0.5, impl="cpu")
        add_dropout(x, x, 0.5, impl="cpu")
    assert kept
    assert max(kept) == 1  # the seeds


@pytest.mark.parametrize("name", ["dropout", "add", "gelu"])
def test_reference_derivatives_pass_gradcheck(name: str) -> None:
    x, residual = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *t: run(name, *t, impl="reference"), (x, residual))


@pytest.mark.needs_kernels
@pytest.mark.unchecked  # sizes become symbols
def test_opcheck_finds_nothing() -> None:
    x, residual = (torch.randn(3, 50, requires_grad=True) for _ in range(2))
    seed = torch.tensor(11)
    operators = torch.ops.tsattn
    library.opcheck(operators.dropout.default, (x, seed, 0.5))
    library.opcheck(operators.add_dropout.default, (residual, x, seed, 0.5))
    library.opcheck(operators.gelu_dropout.default, (x, seed, 0.5))


@pytest.mark.needs_kernels
@pytest.mark.unchecked
def test_torch_compile_draws_a_new_mask_at_every_call() -> None:
    compiled = torch.compile(
        lambda x: add_dropout(x, gelu_dropout(dropout(x, 0.5), 0.5), 0.5),
        backend="aot_eager",
        fullgraph=True,
    )
    x = torch.randn(1000)
    torch.manual_seed(0)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(compiled(x), first)


def test_without_dropout_nothing_is_drawn() -> None:
    x, state = torch.randn(20), torch.get_rng_state()
    assert dropout(x, 0.0) is x
    torch.testing.assert_close(add_dropout(x, x, 0.0), x + x)
    torch.testing.assert_close(gelu_dropout(x, 0.0), F.gelu(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_auto_falls_back_to_torch_where_no_kernel_can_run() -> None:
    y = dropout(torch.ones(10_000, dtype=torch.float64), 0.5)
    assert y.unique().tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: dropout(x, 1.0), r"p must be in \[0, 1\), got 1.0"),
        (lambda x: gelu_dropout(x, -0.5), "got -0.5"),
        (lambda x: add_dropout(x, x[:1], 0.5), r"one shape, got \[3\] and \[1\]"),
        (lambda x: dropout(x, 0.5, impl="sdpa"), "no impl 'sdpa'; expected auto, reference or cpu"),
        (lambda x: dropout(x.double(), 0.5, impl="cpu"), "not torch.float64"),
    ],
)
def test_what_cannot_be_done_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.randn(3))


def run(name: str, x: Tensor, residual: Tensor, impl: str = "cpu") -> Tensor:
    torch.manual_seed(4)
    if name == "add":
        return add_dropout(residual, x, 0.5, impl=impl)
    return (dropout if name == "dropout" else gelu_dropout)(x, 0.5, impl=impl)
