"""Self-attention on packed projections: the same as attention on their parts."""

from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, library

from tests.budget import assert_within_budget
from tsattn.ops import active_attention, build, self_attention
from tsattn.ops.dropout import philox

HEADS, BATCH = 2, 3
compiled = pytest.mark.skipif(not build.is_ready(), reason=build.status().reason)


def layers(impl: str, activation: str = "tanh", is_causal: bool = False) -> Any:
    """Return a chain of layers: every one attends with the scores of all before it."""

    def compute(**projections: Tensor) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        so_far, link = (), None
        for projection in projections.values():
            so_far += (projection,)
            output, link = self_attention(
                so_far, link, num_heads=HEADS, activation=activation, is_causal=is_causal, impl=impl
            )
            outputs.append(output)
        return tuple(outputs)

    return compute


def plainly(activation: str = "tanh", is_causal: bool = False) -> Any:
    """Return the same through scores that are handed on."""

    def compute(**projections: Tensor) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        scores: Tensor | None = None
        for projection in projections.values():
            q, k, v = (
                part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in projection.chunk(3, dim=-1)
            )
            output, scores = active_attention(
                q, k, v, activation=activation, prev_scores=scores, return_scores=True,
                is_causal=is_causal, impl="reference",
            )  # fmt: skip
            outputs.append(output.transpose(1, 2).flatten(2))
        return tuple(outputs)

    return compute


def projections(
    count: int, length: int, width: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    return {
        f"layer{i}": torch.randn(BATCH, length, 3 * HEADS * width).to(dtype) for i in range(count)
    }


@pytest.mark.parametrize("impl", ["cpu", "sdpa", "reference", "auto"])
@pytest.mark.parametrize("count", [1, 3])
def test_layers_agree_with_scores_that_are_handed_on(impl: str, count: int) -> None:
    assert_within_budget(layers(impl), plainly(), projections(count, 42, 4))


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [1, 41, 63, 200])
@pytest.mark.parametrize("width", [3, 8, 64])
def test_the_kernel_stays_within_the_error_budget(
    length: int, width: int, dtype: torch.dtype
) -> None:
    inputs = projections(2, length, width, dtype)
    assert_within_budget(layers("cpu", "tanh", True), plainly("tanh", True), inputs)


@compiled
def test_gradients_also_reach_a_projection_through_other_ways() -> None:
    first, second = (torch.randn(BATCH, 5, 24, requires_grad=True) for _ in range(2))
    gradients: list[tuple[Tensor, ...]] = []
    for impl in ("cpu", "reference"):
        one, link = self_attention([first], num_heads=HEADS, impl=impl)
        two, _ = self_attention([first, second], link, num_heads=HEADS, impl=impl)
        again, _ = self_attention([first, second], link, num_heads=HEADS, impl=impl)
        loss = one.square().sum() + two.sum() * again.sin().sum() + first.cos().sum()
        gradients.append(torch.autograd.grad(loss, (first, second)))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@compiled
def test_what_later_layers_do_not_use_has_no_part_in_the_gradient() -> None:
    first, second = (torch.randn(BATCH, 5, 24, requires_grad=True) for _ in range(2))
    _, link = self_attention([first], num_heads=HEADS)
    two, _ = self_attention([first, second], link, num_heads=HEADS)
    gradients = torch.autograd.grad(two.sum(), (first, second))
    assert gradients[0][..., :16].abs().sum() > 0
    assert torch.equal(gradients[0][..., 16:], torch.zeros(BATCH, 5, 8))  # its values were not used


@compiled
def test_dropout_is_that_of_the_attention_kernel() -> None:
    projection = torch.randn(BATCH, 9, 24)
    q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in projection.chunk(3, dim=-1))
    torch.manual_seed(1)
    packed = self_attention([projection], num_heads=HEADS, dropout_p=0.5).output
    torch.manual_seed(1)
    apart = active_attention(q, k, v, dropout_p=0.5, impl="cpu")
    assert isinstance(apart, Tensor)
    assert torch.equal(packed, apart.transpose(1, 2).flatten(2))


@compiled
@pytest.mark.unchecked  # sizes become symbols
def test_opcheck_finds_nothing() -> None:
    rows = [torch.randn(1, 7, 24, requires_grad=True) for _ in range(2)]
    link = torch.zeros(1, 1, 7, 16, requires_grad=True)
    settings = (2, 4, True, 0.2, 0.5)
    forward = torch.ops.tsattn.self_attention_forward.default
    arguments = (rows, link, philox.draw_seed(), *settings)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    library.opcheck(forward, arguments, test_utils=tests)
    plain = [row.detach() for row in rows]
    output, _, stats = forward(plain, link.detach(), philox.draw_seed(), *settings)
    library.opcheck(
        torch.ops.tsattn.self_attention_backward.default,
        (
            torch.randn_like(output), torch.randn(2, 1, 7, 16), plain, philox.draw_seed(), output,
            stats, *settings,
        ),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


@compiled
@pytest.mark.unchecked
def test_torch_compile_takes_a_chain_of_layers_without_a_graph_break() -> None:
    inputs = projections(3, 9, 4)
    for projection in inputs.values():
        projection.requires_grad_()

    def loss() -> Tensor:
        return torch.stack([output.sin().sum() for output in layers("auto")(**inputs)]).sum()

    fast = torch.compile(loss, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(loss(), list(inputs.values()))
    torch.testing.assert_close(torch.autograd.grad(fast(), list(inputs.values())), expected)


@compiled
def test_derivatives_of_derivatives_are_refused_with_what_to_do() -> None:
    projection = torch.randn(BATCH, 5, 24, requires_grad=True)
    output = self_attention([projection], num_heads=HEADS).output
    with pytest.raises(RuntimeError, match='by impl="reference"'):
        torch.autograd.grad(output.sum(), projection, create_graph=True)


@pytest.mark.parametrize(
    ("shapes", "heads", "message"),
    [
        ([(2, 5, 25)], 2, "for 2 heads, got \\[2, 5, 25\\]"),
        ([(2, 5, 24)], 0, "for 0 heads"),
        ([(5, 24)], 2, "expected projections"),
        ([], 2, "expected projections"),
        ([(2, 5, 24), (2, 6, 24)], 2, "share one shape, got \\[2, 5, 24\\], \\[2, 6, 24\\]"),
    ],
)
def test_what_does_not_fit_is_named(
    shapes: list[tuple[int, ...]], heads: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        self_attention([torch.zeros(shape) for shape in shapes], num_heads=heads)


@compiled
@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2)], ids=str)
@pytest.mark.parametrize("frozen", [(), (0,), (1,), (2,), (0, 1)], ids=str)
def test_layers_that_are_frozen_or_whose_output_nobody_uses_change_no_other_gradient(
    used: tuple[int, ...], frozen: tuple[int, ...]
) -> None:
    given = list(projections(3, 17, 4).values())
    wanted = [p.requires_grad_() for i, p in enumerate(given) if i not in frozen]
    found: list[tuple[Tensor | None, ...]] = []
    for compute in (layers("cpu"), plainly()):
        outputs = compute(**dict(zip("abc", given, strict=True)))
        loss = torch.stack([outputs[i].square().sum() for i in used]).sum()
        if not loss.requires_grad:
            pytest.skip("nothing of what is used is trained")
        found.append(torch.autograd.grad(loss, wanted, allow_unused=True))
    for ours, expected in zip(*found, strict=True):
        if ours is None or expected is None:
            assert ours is None or not ours.any()
            assert expected is None or not expected.any()
        else:
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@compiled
def test_activations_can_be_computed_again_in_the_backward_pass() -> None:
    given = [p.requires_grad_() for p in projections(2, 17, 4).values()]

    def last(*own: Tensor) -> Tensor:
        return layers("cpu")(**dict(zip("ab", own, strict=True)))[-1].square().sum()

    usual = torch.autograd.grad(last(*given), given)
    recomputed = torch.utils.checkpoint.checkpoint(last, *given, use_reentrant=False)
    assert isinstance(recomputed, Tensor)
    for one, two in zip(usual, torch.autograd.grad(recomputed, given), strict=True):
        assert torch.equal(one, two)
