"""Tokens to their experts and back, in three computations with one result.

``y[n] = sum_k weights[n, k] expert_(experts[n, k])(x[n])``. The slots (token, chosen expert) are
sorted by expert, stably. Every addition runs in a fixed order and no index is written twice in one
go, so that a result is the same bit for bit at every run on one machine.
"""

# The context of an autograd function carries no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from enum import StrEnum
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsattn import ops
from tsattn.nn.moe.experts import Experts
from tsattn.tensors import Chosen, ChosenOutputs, ExpertCounts, FlatTokens, Weights


class Computing(StrEnum):
    """Who computes the experts' outputs.

    ``loop`` runs one expert after the other on its tokens; ``grouped`` all of them in grouped
    products; ``all`` every expert on every token, those not chosen with weight zero. ``auto``
    chooses by size, see `choose`.
    """

    AUTO = "auto"
    LOOP = "loop"
    GROUPED = "grouped"
    ALL = "all"


def as_computing(name: str | Computing) -> Computing:
    """Return a computation by its name.

    Raises:
        ValueError: another name.
    """
    if name not in [member.value for member in Computing]:
        known = ", ".join(member.value for member in Computing)
        raise ValueError(f"unknown computing {name!r}; expected one of {known}")
    return Computing(name)


class Slots(NamedTuple):
    """Slots sorted by expert.

    Attributes:
        order_S: slot ``n K + k`` at each sorted place.
        counts_E: slots of each expert.
    """

    order_S: Tensor
    counts_E: Tensor


def apply_experts(
    experts: Experts,
    x_ND: FlatTokens,
    experts_NK: Chosen,
    weights_NK: Weights,
    computing: str | Computing = Computing.AUTO,
) -> Tensor:
    """Return the weighted sum of the chosen experts' outputs for every token, [N, D].

    Args:
        experts: the experts.
        x_ND: tokens.
        experts_NK: chosen experts of each token, all different.
        weights_NK: their weights; a slot with weight zero adds nothing.
        computing: see `Computing`; a named one runs or raises.

    Raises:
        ValueError: an unknown computation, or one that cannot take these experts and tokens.
    """
    chosen = chosen_for(experts, x_ND, experts_NK.shape[1], computing)
    if chosen is Computing.ALL:
        return experts.mixture(x_ND, spread(experts_NK, weights_NK, experts.num_experts))
    if chosen is Computing.GROUPED:
        return _grouped(experts, x_ND, experts_NK, weights_NK)
    return _loop(experts, x_ND, experts_NK, weights_NK)


def chosen_for(experts: Experts, x_ND: Tensor, top_k: int, computing: str | Computing) -> Computing:
    """Return the computation to take, which is the one that was named, or by size.

    Raises:
        ValueError: an unknown computation, or one that cannot take these experts and tokens.
    """
    chosen = as_computing(computing)
    if chosen is Computing.AUTO:
        return choose(experts, x_ND, top_k)
    if chosen is Computing.GROUPED and (obstacle := experts.groupable(x_ND)):
        raise ValueError(f"computing 'grouped' cannot work here: {obstacle}; take 'auto'")
    return chosen


_SLOT_OVERHEAD_FLOPS = 2_000
"""What sorting, gathering and adding one slot costs, in operations of a product (measured)."""
_EXPERT_OVERHEAD_FLOPS = 2_000_000
"""What starting one expert costs, forwards and backwards, in the same unit (measured)."""


def choose(experts: Experts, x_ND: Tensor, top_k: int) -> Computing:
    """Return the computation that is likely fastest.

    All experts on all tokens where every expert is chosen or where so few tokens or so small
    experts are at work that sorting costs more than it saves; elsewhere one expert after the other
    on a CPU, and grouped products on an accelerator where they are possible. In a compiled graph,
    whose shapes must not depend on the choice of experts, the loop gives way to the other two.
    """
    tokens, num_experts = x_ND.shape[0], experts.num_experts
    if top_k >= num_experts:
        return Computing.ALL
    on_cpu = x_ND.device.type == "cpu"
    if not on_cpu or torch.compiler.is_compiling():
        grouped = not on_cpu and not experts.groupable(x_ND)
        return Computing.GROUPED if grouped else Computing.ALL
    saved = tokens * (num_experts - top_k) * experts.flops_per_slot
    spent = tokens * top_k * _SLOT_OVERHEAD_FLOPS + num_experts * _EXPERT_OVERHEAD_FLOPS
    return Computing.LOOP if saved > spent else Computing.ALL


def spread(experts_NK: Chosen, weights_NK: Weights, num_experts: int) -> Tensor:
    """Return the weights [N, E] of all experts, zero for those not chosen."""
    zeros = weights_NK.new_zeros(weights_NK.shape[0], num_experts)
    return zeros.scatter(1, experts_NK, weights_NK)


def count(experts_NK: Chosen, num_experts: int) -> ExpertCounts:
    """Return how many slots each expert has."""
    return ops.count_slots(experts_NK, num_experts)


def sort_slots(experts_NK: Chosen, num_experts: int) -> Slots:
    """Sort the slots by expert; those of one expert keep the order of their tokens."""
    return Slots(*ops.sort_slots(experts_NK, num_experts))


def _pieces_of(experts: Experts, experts_NK: Tensor) -> tuple[Slots, list[Tensor]]:
    """Return the sorted slots, and the tokens of every expert."""
    slots = sort_slots(experts_NK, experts.num_experts)
    sizes = slots.counts_E.tolist()
    return slots, [part // experts_NK.shape[1] for part in slots.order_S.split(sizes)]


def _loop(experts: Experts, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
    if experts.is_one_operation(x_ND, weights_NK):
        slots = sort_slots(experts_NK, experts.num_experts)
        return experts.in_one_operation(x_ND, weights_NK, *slots)
    slots, tokens = _pieces_of(experts, experts_NK)
    pieces: tuple[Tensor, ...] = _Gather.apply(x_ND, tokens)
    outputs = experts.in_pieces(pieces)
    return _AddUp.apply(len(x_ND), weights_NK, slots.order_S, tokens, *outputs)


class _Gather(torch.autograd.Function):
    """The tokens of every expert; backwards their gradients are added up, expert by expert."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, tokens: list[Tensor]) -> tuple[Tensor, ...]:
        ctx.tokens, ctx.shape = tokens, x_ND.shape
        return tuple(x_ND.index_select(0, index) for index in tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].new_zeros(ctx.shape)
        for index, grad in zip(ctx.tokens, grads, strict=True):
            total.index_add_(0, index, grad)  # an expert has a token once
        return total, None


class _AddUp(torch.autograd.Function):
    """The weighted sum of the experts' outputs in their order, in float32 at least."""

    @staticmethod
    def forward(
        ctx: Any, rows: int, weights_NK: Tensor, order_S: Tensor, tokens: list[Tensor], *ys: Tensor
    ) -> Tensor:
        ctx.tokens, ctx.sizes = tokens, (sizes := [len(index) for index in tokens])
        ctx.save_for_backward(weights_NK, order_S, *ys)
        weights_S = weights_NK.flatten()[order_S]
        wide = torch.promote_types(ys[0].dtype, torch.float32)
        total = ys[0].new_zeros(rows, ys[0].shape[1], dtype=wide)
        for index, weight, y in zip(tokens, weights_S.split(sizes), ys, strict=True):
            total.index_add_(0, index, (y * weight[:, None]).to(wide))
        return total.to(ys[0].dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        weights_NK, order_S, *ys = ctx.saved_tensors
        weights_S = weights_NK.flatten()[order_S]  # with its graph, for a second derivative
        grad_weights, grad_ys = torch.empty_like(weights_S), list[Tensor]()
        parts = zip(
            ctx.tokens, weights_S.split(ctx.sizes), order_S.split(ctx.sizes), ys, strict=True
        )
        for index, weight, order, y in parts:
            here = grad.index_select(0, index)
            dots = (here[:, None, :] @ y.to(here.dtype)[:, :, None]).flatten()
            grad_weights.index_copy_(0, order, dots.to(grad_weights.dtype))
            scaled = here.mul if torch.is_grad_enabled() else here.mul_
            grad_ys.append(scaled(weight[:, None]).to(y.dtype))
        return (None, grad_weights.view(weights_NK.shape), None, None, *grad_ys)


def apart(
    experts: Experts,
    x_ND: FlatTokens,
    experts_NK: Chosen,
    computing: str | Computing = Computing.AUTO,
) -> ChosenOutputs:
    """Return the outputs [N, K, D] of the chosen experts for every token, each by itself.

    Raises:
        ValueError: as `apply_experts`.
    """
    chosen = chosen_for(experts, x_ND, experts_NK.shape[1], computing)
    if chosen is Computing.ALL:
        index = experts_NK[:, :, None].expand(-1, -1, x_ND.shape[1])
        return experts.every(x_ND).gather(1, index)
    if chosen is Computing.GROUPED:
        return _grouped_apart(experts, x_ND, experts_NK)
    slots, tokens = _pieces_of(experts, experts_NK)
    outputs = experts.in_pieces(_Gather.apply(x_ND, tokens))
    y_SD: Tensor = _PutBack.apply(slots.order_S, *outputs)
    return y_SD.unflatten(0, experts_NK.shape)


class _PutBack(torch.autograd.Function):
    """The outputs of every expert at the places of their slots."""

    @staticmethod
    def forward(ctx: Any, order_S: Tensor, *ys: Tensor) -> Tensor:
        ctx.orders = order_S.split([len(y) for y in ys])
        dtype = reduce(torch.promote_types, {y.dtype for y in ys})
        whole = ys[0].new_empty(len(order_S), ys[0].shape[1], dtype=dtype)
        for order, y in zip(ctx.orders, ys, strict=True):
            whole.index_copy_(0, order, y.to(dtype))
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        return None, *(grad.index_select(0, order) for order in ctx.orders)


def _grouped_apart(experts: Experts, x_ND: Tensor, experts_NK: Tensor) -> Tensor:
    slots = sort_slots(experts_NK, experts.num_experts)
    places = slots.order_S.argsort()  # where each slot went
    x_SD = _Sorted.apply(x_ND, slots.order_S, places)
    y_SD = experts.in_groups(x_SD, slots.counts_E.cumsum(0))
    return _Unsorted.apply(y_SD, slots.order_S, places).unflatten(0, experts_NK.shape)


def _grouped(experts: Experts, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
    y_NKD = _grouped_apart(experts, x_ND, experts_NK)
    return (weights_NK.to(y_NKD.dtype)[:, None, :] @ y_NKD).squeeze(1)


class _Sorted(torch.autograd.Function):
    """Each token once for every chosen expert, sorted by expert."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, order_S: Tensor, places_S: Tensor) -> Tensor:
        ctx.save_for_backward(places_S)
        ctx.tokens = len(x_ND)
        top_k = len(order_S) // max(1, len(x_ND))
        return x_ND.index_select(0, order_S // top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        (places_S,) = ctx.saved_tensors
        top_k = len(grad) // max(1, ctx.tokens)
        slots = grad.index_select(0, places_S).view(ctx.tokens, top_k, grad.shape[1])
        return slots.sum(dim=1), None, None


class _Unsorted(torch.autograd.Function):
    """The slots back in the order of their tokens."""

    @staticmethod
    def forward(ctx: Any, y_SD: Tensor, order_S: Tensor, places_S: Tensor) -> Tensor:
        ctx.save_for_backward(order_S)
        return y_SD.index_select(0, places_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        (order_S,) = ctx.saved_tensors
        return grad.index_select(0, order_S), None, None
