"""Every compiled operation, called once forwards and once backwards; run as a program, it prints.

``python -m tests.ops.fused_operations`` computes all of them on memory that holds whatever the
allocator left there, and prints a digest of every result.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from tsattn.ops import (
    LayerWeights,
    active_attention,
    add_dropout,
    add_dropout_batch_norm,
    add_dropout_layer_norm,
    dropout,
    encode,
    expert_feedforward,
    feedforward,
    gelu_dropout,
    largest,
    low_rank_logits,
    self_attention,
    softmax_rows,
    sort_slots,
)
from tsattn.ops.encoder import fused_cpu as encoder_cpu
from tsattn.ops.linear import fused_cpu as linear_cpu

Operation = Callable[[], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
"""Returns the outputs and the leaves they were made from."""
P = 0.3


def _leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in shapes)


def _attention(
    dtype: torch.dtype, queries: int, keys: int, width: int, *, scores: bool, is_masked: bool
) -> Operation:
    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        shapes = ((2, 3, queries, width), (2, 3, keys, width), (2, 3, keys, width + 1))
        leaves = _leaves(*shapes, *[(2, 3, queries, keys)] * scores, dtype=dtype)
        mask = torch.rand(queries, keys) > 0.2 if is_masked else None
        result = active_attention(
            *leaves[:3], activation="gelu", prev_scores=leaves[3] if scores else None,
            return_scores=scores, mask=mask, is_causal=is_masked, dropout_p=P, impl="cpu",
        )  # fmt: skip
        return result if isinstance(result, tuple) else (result,), leaves

    return run


def _chain(dtype: torch.dtype) -> Operation:
    """Three layers of self-attention, each with the scores of those before."""

    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        leaves = _leaves(*[(2, 43, 3 * 10)] * 3, dtype=dtype)
        outputs: list[Tensor] = []
        link = None
        for layer in range(3):
            output, link = self_attention(
                leaves[: layer + 1], link, num_heads=2, activation="tanh", dropout_p=P, impl="cpu"
            )
            outputs.append(output)
        return tuple(outputs), leaves

    return run


def _elementwise(operation: Callable[..., Tensor], count: int, dtype: torch.dtype) -> Operation:
    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        leaves = _leaves(*[(7, 43, 5)] * count, dtype=dtype)
        return (operation(*leaves, P, impl="cpu"),), leaves

    return run


def _feedforward() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    leaves = _leaves((47, 16), (40, 16), (40,), (16, 40), (16,))
    return (feedforward(*leaves, p=P, impl="cpu"),), leaves


def _experts(dtype: torch.dtype, slots: int, width: int, hidden: int) -> Operation:
    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        shapes = ((3, hidden, width), (3, hidden), (3, width, hidden), (3, width))
        x, w1, b1, w2, b2 = _leaves((slots, width), *shapes, dtype=dtype)
        weights = torch.rand(slots, 2).requires_grad_()
        chosen = torch.rand(slots, 3).topk(2).indices
        output = expert_feedforward(
            x, weights, *sort_slots(chosen, 3), (w1, b1, w2, b2), p=P, impl="cpu"
        )
        return (output,), (x, weights, w1, b1, w2, b2)

    return run


def _softmax_rows() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    (scores,) = _leaves((1231, 19))
    chosen = largest(scores, 11)
    return (softmax_rows(scores).gather(1, chosen),), (scores,)


def _low_rank_logits() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    x, maps, bias = _leaves((531, 32), (15, 32), (15,))
    return (low_rank_logits(x, maps, bias, 3, impl="cpu"),), (x, maps, bias)


def _batch_norm() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    leaves = _leaves((131, 17), (131, 17), (17,), (17,))
    return tuple(add_dropout_batch_norm(*leaves, p=P, impl="cpu"))[:1], leaves


def _layer_norm() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    leaves = _leaves((531, 17), (531, 17), (17,), (17,))
    return (add_dropout_layer_norm(*leaves, p=P, impl="cpu"),), leaves


def _linear(dtype: torch.dtype, width: int, features: int) -> Operation:
    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        leaves = _leaves((3, 531, width), (features, width), (features,), dtype=dtype)
        return (linear_cpu.linear(*leaves),), leaves

    return run


def encoder_weights(
    layers: int, width: int, hidden: int, dtype: torch.dtype = torch.float32
) -> list[LayerWeights]:
    """Draw the weights of an encoder, matrices of ``dtype``."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape) / shape[-1] ** 0.5

    def layer() -> LayerWeights:
        row = [draw(width) for _ in range(6)]
        return LayerWeights(
            draw(3 * width, width).to(dtype), draw(3 * width), draw(width, width).to(dtype),
            row[0], draw(hidden, width).to(dtype), draw(hidden), draw(width, hidden).to(dtype),
            row[1], row[2].abs() + 0.5, row[3], row[4].abs() + 0.5, row[5],
        )  # fmt: skip

    return [layer() for _ in range(layers)]


def _encode(dtype: torch.dtype) -> Operation:
    def run() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        weights = encoder_weights(3, 48, 80, dtype)
        is_cast = dtype != torch.float32
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
            x = torch.randn(7, 43, 48)
            return (encode(x, weights, num_heads=6, activation="silu", impl="cpu"),), ()

    return run


OPERATIONS: dict[str, Operation] = {
    f"{name} {dtype}": operation
    for dtype in (torch.float32, torch.bfloat16)
    for name, operation in {
        "attention": _attention(dtype, 42, 42, 4, scores=False, is_masked=False),
        "wide attention": _attention(dtype, 43, 17, 67, scores=False, is_masked=True),
        "long attention": _attention(dtype, 200, 131, 16, scores=False, is_masked=True),
        "one query": _attention(dtype, 1, 9, 3, scores=True, is_masked=True),
        "residual attention": _attention(dtype, 41, 63, 5, scores=True, is_masked=False),
        "chain of self-attention": _chain(dtype),
        "dropout": _elementwise(dropout, 1, dtype),
        "add_dropout": _elementwise(add_dropout, 2, dtype),
        "gelu_dropout": _elementwise(gelu_dropout, 1, dtype),
        "linear": _linear(dtype, 17, 35),
        "dense linear": _linear(dtype, 64, 98),
        "experts": _experts(dtype, 431, 48, 32),
        "narrow experts": _experts(dtype, 731, 16, 32),
    }.items()
} | {
    "feedforward": _feedforward,
    "softmax of rows": _softmax_rows,
    "low-rank logits": _low_rank_logits,
    "batch norm": _batch_norm,
    "layer norm": _layer_norm,
}
OPERATIONS |= {
    f"encoder {dtype}": _encode(dtype)
    for dtype in (torch.float32, torch.bfloat16)
    if encoder_cpu.is_compiled(48, 80, dtype)
}


def results(operation: Operation) -> list[Tensor]:
    """Return outputs and gradients, always of the same numbers."""
    torch.manual_seed(8)
    outputs, leaves = operation()
    above = [torch.randn(o.shape).to(o.dtype) for o in outputs]
    gradients = torch.autograd.grad(outputs, leaves, above) if leaves else ()
    return [*(o.detach() for o in outputs), *gradients]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)  # NaN in what torch.empty returns
    for name, operation in OPERATIONS.items():
        digest = hashlib.sha256()
        for result in results(operation):
            assert result.isfinite().all(), name
            digest.update(result.float().contiguous().numpy().tobytes())
        print(f"{name}: {digest.hexdigest()}")
