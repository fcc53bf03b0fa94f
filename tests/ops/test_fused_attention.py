"""What only the compiled attention promises; what all implementations promise is tested beside."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, library

from tests.budget import FACTOR, assert_within_budget
from tests.calls import Calls
from tests.ops.attention_cases import Case
from tsattn.ops import active_attention, build
from tsattn.ops.attention import fused_cpu
from tsattn.ops.dropout import philox

pytestmark = pytest.mark.skipif(not build.is_ready(), reason=build.status().reason)

P = 0.3


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def dropped(case: Case) -> Any:
    """Return the kernel with dropout, always from the same seed."""

    def compute(**tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        torch.manual_seed(3)
        return active_attention(
            tensors["q"],
            tensors["k"],
            tensors["v"],
            activation=case.activation,
            prev_scores=tensors.get("prev_scores"),
            return_scores=case.return_scores,
            mask=tensors.get("mask"),
            is_causal=case.is_causal,
            dropout_p=P,
            impl="cpu",
        )

    return compute


def dropped_plainly(case: Case) -> Any:
    """Return plain torch with the mask that the seed means."""
    torch.manual_seed(3)
    keys = case.queries if case.keys is None else case.keys
    shape = (case.batch, case.heads, case.queries, keys)
    keep = philox.keep_weights(philox.draw_seed(), shape, P) * philox.keep_scale(P)

    def compute(**tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        q, k, v = tensors["q"], tensors["k"], tensors["v"]
        scores = q @ k.transpose(2, 3) * case.width**-0.5 + tensors.get("prev_scores", 0.0)
        hidden = case._hidden(tensors)  # pyright: ignore[reportPrivateUsage]
        blind = (scores + hidden).isinf().all(-1, keepdim=True)
        weights = torch.softmax((scores + hidden).masked_fill(blind, 0.0), -1).masked_fill(blind, 0)
        output = (weights * keep.to(q.dtype)) @ case._activate(v)  # pyright: ignore[reportPrivateUsage]
        return (output, scores) if case.return_scores else output

    return compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(queries=63, heads=16, width=4, prev_scores=True, return_scores=True),
        Case(queries=17, keys=200, width=64, activation="gelu"),
        Case(queries=200, keys=43, prev_scores=True, activation="relu", layout="heads last"),
        Case(queries=41, mask="holes", is_causal=True, activation="sigmoid"),
        Case(queries=1, keys=9, mask="bias", activation="silu"),
    ],
    ids=str,
)
def test_dropout_uses_the_mask_of_its_seed_forwards_and_backwards(
    case: Case, dtype: torch.dtype
) -> None:
    assert_within_budget(dropped(case), dropped_plainly(case), case.inputs(dtype))


@pytest.mark.parametrize(("length", "width"), [(512, 16), (512, 64), (200, 4)])
def test_sums_over_many_keys_stay_within_the_error_budget(length: int, width: int) -> None:
    case = Case(queries=length, width=width, heads=1, batch=1, activation="sigmoid")
    assert_within_budget(case.implementation("cpu"), case.plain, case.inputs(torch.float32))


def test_a_module_as_activation_gets_the_gradient_that_the_reference_gives() -> None:
    q, k, v = (torch.randn(2, 3, 42, 4) for _ in range(3))

    def through(impl: str) -> Any:
        def compute(**t: Tensor) -> Tensor:
            return alone(
                t["q"], t["k"], t["v"], impl=impl,
                activation=lambda x: torch.where(x > 0, x, x * t["slope"]),
            )  # fmt: skip

        return compute

    inputs = {"q": q, "k": k, "v": v, "slope": torch.tensor(0.3)}
    assert_within_budget(through("cpu"), through("reference"), inputs)
    module = torch.nn.PReLU(init=0.3)
    with Calls() as calls:
        output = alone(q, k, v, activation=module, impl="cpu")
        (gradient,) = torch.autograd.grad(output.square().sum(), module.weight)
    assert {"tsattn::attention_forward", "tsattn::attention_backward"} <= calls.names
    expected = alone(q, k, v, activation=module, impl="reference")
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(expected.square().sum(), module.weight)[0], rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("queries", [9, 17, 24, 63, 200])
def test_keys_and_values_with_a_mean_cost_bfloat16_no_accuracy(queries: int) -> None:
    """Rows of the scores' gradient sum to zero; what is left of the sum meets the mean key."""
    case = Case(queries=queries, batch=8)
    inputs = case.inputs(torch.bfloat16)
    for name in ("k", "v"):
        inputs[name] += 4 * torch.randn(1, case.heads, 1, case.width, dtype=torch.bfloat16)
    assert_within_budget(case.implementation("cpu"), case.plain, inputs, factor=1.0)


@pytest.mark.parametrize("sizes", [(42, 42), (17, 63), (63, 200), (1, 9), (5, 1)], ids=str)
def test_scores_of_bfloat16_are_read_and_written_as_they_lie(sizes: tuple[int, int]) -> None:
    """Nothing is copied to float32 first, and the order of the axes in memory does not matter."""
    case = Case(queries=sizes[0], keys=sizes[1], prev_scores=True, return_scores=True)
    tensors = case.inputs(torch.bfloat16)
    grad_output = torch.randn(tensors["q"].shape).bfloat16()
    grad_scores = torch.randn(tensors["prev_scores"].shape).bfloat16()
    found: list[list[Tensor]] = []
    for turned in (False, True):
        leaves = [tensors[name].clone() for name in ("q", "k", "v", "prev_scores")]
        above = [grad_output, grad_scores]
        if turned:
            leaves[3], above[1] = (
                x.transpose(2, 3).contiguous().transpose(2, 3) for x in (leaves[3], above[1])
            )
        leaves = [leaf.requires_grad_() for leaf in leaves]
        with Calls() as calls:
            results = active_attention(
                *leaves[:3], prev_scores=leaves[3], return_scores=True, impl="cpu"
            )
            gradients = torch.autograd.grad(results, leaves, above)
        assert "aten::_to_copy" not in calls.names
        found.append([*results, *gradients])
        assert all(x.dtype == torch.bfloat16 for x in found[-1])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("handed_on", [False, True])
def test_one_plane_of_scores_is_kept(dtype: torch.dtype, handed_on: bool) -> None:
    """The sum that is handed on, where it is not rounded; else the scores that were added."""
    case = Case(prev_scores=True)
    q, k, v, prev = (t.requires_grad_() for t in case.inputs(dtype).values())
    kept: list[tuple[torch.Size, int]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append((tensor.shape, tensor.data_ptr()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = active_attention(q, k, v, prev_scores=prev, return_scores=handed_on, impl="cpu")
    planes = {pointer for shape, pointer in kept if shape == prev.shape}
    is_sum = isinstance(result, tuple) and dtype == torch.float32
    assert planes == {result[1].data_ptr() if is_sum else prev.data_ptr()}


def test_scores_that_were_changed_after_they_were_handed_on_are_noticed() -> None:
    q, k, v, prev = (
        t.requires_grad_() for t in Case(prev_scores=True).inputs(torch.float32).values()
    )
    output, scores = active_attention(q, k, v, prev_scores=prev, return_scores=True, impl="cpu")
    with torch.no_grad():
        scores.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("width", [3, 8])  # heads whose gradients are sums across lanes
@pytest.mark.parametrize("queries", [1, 5, 17, 41])
def test_lanes_behind_the_last_query_add_nothing(queries: int, width: int) -> None:
    """What they hold overflows here: scores in the hundreds, whose largest is far below zero."""
    case = Case(queries=queries, keys=20, width=width, prev_scores=True)
    inputs = case.inputs(torch.float32)
    inputs["q"] *= 100
    inputs["prev_scores"] -= 1000
    assert_within_budget(case.implementation("cpu"), case.plain, inputs, factor=2 * FACTOR)


def test_previous_scores_of_float32_keep_their_precision_beside_bfloat16() -> None:
    q, k, v, prev = (
        torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(i))
        for i, size in enumerate([(33, 8), (42, 8), (42, 8), (33, 42)])
    )
    halves = [x.bfloat16() for x in (q, k, v)]
    prev = prev + 500  # of which bfloat16 would keep steps of 2
    prev.requires_grad_()
    output = alone(*halves, prev_scores=prev, impl="cpu")
    expected = alone(*(x.double() for x in halves), prev_scores=prev.double(), impl="reference")
    torch.testing.assert_close(output.double(), expected, rtol=0.02, atol=0.02)
    (gradient,) = torch.autograd.grad(output.float().sum(), prev)
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize("width", [1, 2, 3, 5, 12, 24, 40, 71])
@pytest.mark.parametrize("queries", [15, 33])
def test_bfloat16_of_any_width_stays_within_the_error_budget(queries: int, width: int) -> None:
    case = Case(queries=queries, keys=50 - queries, width=width, value_width=width + 1)
    assert_within_budget(dropped(case), dropped_plainly(case), case.inputs(torch.bfloat16))


def test_the_dropout_mask_has_the_right_rate_everywhere() -> None:
    batch, heads, length = 8, 4, 45
    weights = attention_weights(torch.zeros(batch, heads, length, 2), dropout_p=P)
    kept = (weights > 0).float()
    deviation = math.sqrt(P * (1 - P))
    assert kept.mean().item() == pytest.approx(1 - P, abs=5 * deviation / math.sqrt(kept.numel()))
    for axes in ((0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 2, 3)):  # every key, query, window, head
        means = kept.mean(axes)
        spread = deviation / math.sqrt(kept.numel() / means.numel())
        assert ((means - (1 - P)).abs() < 5 * spread).all()
    torch.testing.assert_close(weights.max().item(), 1 / length / (1 - P), rtol=1e-4, atol=0)


def test_dropout_masks_of_two_calls_and_of_neighbours_are_independent() -> None:
    q = torch.zeros(8, 4, 48, 2)
    first, second = (attention_weights(q, dropout_p=0.5) > 0 for _ in range(2))
    pairs = {
        "calls": (first, second),
        "heads": (first[:, 1:], first[:, :-1]),
        "windows": (first[1:], first[:-1]),
        "queries": (first[:, :, 1:], first[:, :, :-1]),
        "keys": (first[..., 1:], first[..., :-1]),
        "groups": (first[..., 8:], first[..., :-8]),
    }
    for name, (a, b) in pairs.items():
        agreeing = (a == b).float().mean().item()
        assert agreeing == pytest.approx(0.5, abs=2.5 / math.sqrt(a.numel())), name


def test_the_seed_of_torch_decides_the_dropout() -> None:
    q = torch.randn(2, 3, 42, 4)
    results: list[Tensor] = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        results.append(alone(q, q, q, dropout_p=P, impl="cpu"))
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("dropout_p", [0.0, P])
def test_one_and_two_threads_give_the_same_numbers(
    batch: int, dropout_p: float, two_threads: None
) -> None:
    case = Case(queries=200, keys=63, heads=3, batch=batch, prev_scores=True, return_scores=True)
    q, k, v, previous = (t.requires_grad_() for t in case.inputs(torch.float32).values())
    runs: list[list[Tensor]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        output, scores = active_attention(
            q, k, v, activation="tanh", prev_scores=previous, return_scores=True,
            dropout_p=dropout_p, impl="cpu",
        )  # fmt: skip
        gradients = torch.autograd.grad((output.square().sum(), scores.sum()), (q, k, v, previous))
        runs.append([output, scores, *gradients])
    assert all(map(torch.equal, *runs))


@pytest.mark.parametrize("return_scores", [False, True])
@pytest.mark.parametrize("prev_scores", [False, True])
def test_the_backward_pass_keeps_nothing_of_the_size_of_the_weights(
    prev_scores: bool, return_scores: bool
) -> None:
    case = Case(queries=96, width=2, prev_scores=prev_scores)
    tensors = {name: t.requires_grad_() for name, t in case.inputs(torch.float32).items()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = active_attention(
            tensors["q"], tensors["k"], tensors["v"], prev_scores=tensors.get("prev_scores"),
            return_scores=return_scores, dropout_p=P, impl="cpu",
        )  # fmt: skip
    handed_on = [result[1]] if prev_scores and isinstance(result, tuple) else []
    there = {t.data_ptr() for t in (*tensors.values(), *handed_on)}
    of_its_own = [t for t in kept if t.data_ptr() not in there]
    assert of_its_own
    assert max(t.numel() for t in of_its_own) <= tensors["q"].numel()


def test_a_chain_of_layers_hands_scores_and_gradients_on() -> None:
    """The scores of one layer are another's previous scores, in the kernel's own order."""
    case = Case(queries=43, heads=2, width=4)

    def chain(impl: str) -> Any:
        def compute(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            scores: Tensor | None = None
            outputs: list[Tensor] = []
            for layer in range(3):
                output, scores = active_attention(
                    q, k.roll(layer, 2), v, activation="tanh", prev_scores=scores,
                    return_scores=True, impl=impl,
                )  # fmt: skip
                outputs.append(output)
            assert scores is not None
            return *outputs, scores

        return compute

    assert_within_budget(chain("cpu"), chain("reference"), case.inputs(torch.float32))


@pytest.mark.parametrize("shape", [(1, 1, 42, 42), (3, 42, 1), (42,)], ids=str)
def test_a_bias_that_is_broadcast_gets_the_summed_gradient(shape: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(2, 3, 42, 4) for _ in range(3))
    bias = torch.randn(shape)

    def attend(impl: str) -> Any:
        return lambda **t: active_attention(t["q"], t["k"], t["v"], mask=t["bias"], impl=impl)

    inputs = {"q": q, "k": k, "v": v, "bias": bias}
    assert_within_budget(attend("cpu"), attend("reference"), inputs)


@pytest.mark.unchecked  # sizes become symbols
def test_opcheck_finds_nothing() -> None:
    case = Case(queries=9, keys=11, batch=1, heads=2, width=4, prev_scores=True)
    q, k, v, previous = (t.requires_grad_() for t in case.inputs(torch.float32).values())
    bias, seed = torch.randn(1, 1, 9, 11), torch.tensor(5)
    forward = torch.ops.tsattn.attention_forward.default
    tests = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    )
    for args in (
        (q, k, v, None, None, None, 4, False, False, 0.0, 0.5),
        (q, k, v, previous, bias, seed, 2, True, True, 0.2, 0.5),
    ):
        library.opcheck(forward, args, test_utils=tests)
        output, scores, stats = (t.detach() for t in forward(*args))
        plain = [t.detach() if isinstance(t, Tensor) else t for t in args]
        for has_scores in {False, args[8]}:
            library.opcheck(
                torch.ops.tsattn.attention_backward.default,
                (
                    torch.randn_like(output), torch.randn_like(scores) if args[8] else None,
                    *plain[:3], scores if has_scores else plain[3], *plain[4:6], output, stats,
                    args[6], args[7], *args[9:], has_scores, args[3] is not None, False,
                ),
                test_utils=("test_schema", "test_faketensor"),
            )  # fmt: skip


def test_the_backward_pass_wants_the_scores_it_was_promised() -> None:
    q = torch.randn(1, 2, 9, 4)
    args = (q, q, q, None, None, None, 4, False, False, 0.0, 0.5)
    output, _, stats = torch.ops.tsattn.attention_forward(*args)
    with pytest.raises(RuntimeError, match="prev_scores must be the scores"):
        torch.ops.tsattn.attention_backward(
            output, None, *args[:6], output, stats, *args[6:8], *args[9:], True, False, False
        )


@pytest.mark.filterwarnings("ignore:Input #:UserWarning")  # the kernel has no double precision
def test_numerical_derivatives_agree() -> None:
    q, k, v = (torch.rand(1, 1, 3, 2).requires_grad_() for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda *qkv: active_attention(*qkv, activation="silu", impl="cpu"),
        (q, k, v), eps=1e-2, atol=2e-3, rtol=2e-2,
    )  # fmt: skip


@pytest.mark.unchecked
def test_torch_compile_takes_the_kernel_without_a_graph_break() -> None:
    q = torch.randn(2, 3, 10, 4, requires_grad=True)

    def attend(x: Tensor) -> Tensor:
        output, scores = active_attention(x, x, x, activation="gelu", return_scores=True)
        return (output + alone(x, x, x, prev_scores=scores)).sum()

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q), attend(q))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(q), q), torch.autograd.grad(attend(q), q)
    )


def test_autocast_follows_the_dtype_of_the_inputs() -> None:
    q = torch.randn(2, 3, 10, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert alone(q, q, q, impl="cpu").dtype == torch.float32
        assert alone(*(q.bfloat16(),) * 3, impl="cpu").dtype == torch.bfloat16


def test_auto_takes_the_kernel_for_float32_on_a_cpu() -> None:
    q = torch.randn(2, 3, 42, 4)
    ours = alone(q, q, q, activation="tanh", impl="cpu")
    assert torch.equal(alone(q, q, q, activation="tanh"), ours)
    doubles = alone(*(q.double(),) * 3)
    assert torch.equal(doubles, alone(*(q.double(),) * 3, impl="sdpa"))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(1, 1, 2, 4, dtype=torch.float64), "float32 and bfloat16, not torch.float64"),
        (torch.zeros(1, 1, 2, 4, device="meta"), "the tensors are on meta"),
    ],
    ids=str,
)
def test_a_named_kernel_refuses_what_it_cannot_take(tensor: Tensor, reason: str) -> None:
    assert reason in fused_cpu.obstacle(tensor, tensor, tensor)
    with pytest.raises(ValueError, match=reason):
        active_attention(tensor, tensor, tensor, impl="cpu")


def test_operators_called_past_the_library_refuse_shapes_that_do_not_fit() -> None:
    q, k = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4)
    with pytest.raises(RuntimeError, match="do not fit"):
        torch.ops.tsattn.attention_forward(
            q, k, q, None, None, None, 0, False, False, 0.0, 1.0
        )  # fmt: skip
    with pytest.raises(RuntimeError, match="needs a seed"):
        torch.ops.tsattn.attention_forward(q, k, k, None, None, None, 0, False, False, 0.1, 1.0)


def attention_weights(q: Tensor, dropout_p: float) -> Tensor:
    """Return the weights themselves: the output where the values are the unit matrix."""
    length = q.shape[2]
    values = torch.eye(length).expand(*q.shape[:2], length, length)
    return alone(q, q, values, dropout_p=dropout_p, impl="cpu")


def alone(*qkv: Tensor, **settings: Any) -> Tensor:
    """Attend without asking for scores."""
    output = active_attention(*qkv, **settings)
    assert isinstance(output, Tensor)
    return output
