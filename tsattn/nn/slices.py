"""The branches of an encoder layer, computed in slices and once more in the backward pass."""

# Torch's autograd functions carry no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.attention import MultiHeadActiveAttention, ScoreFactors
from tsattn.nn.recompute import Made, recomputed
from tsattn.tensors import Tokens


class ScoreSources(NamedTuple):
    """What the scores of earlier layers can be computed from: their attentions and tokens.

    The link [B, layers, L, 2 D] holds no numbers; gradients of these layers' queries and keys go
    back through it.
    """

    attentions: tuple[MultiHeadActiveAttention, ...]
    tokens: tuple[Tensor, ...]
    link: Tensor


def feed_in_slices(feedforward: nn.Module, x_BLD: Tokens) -> Tensor:
    """Return ``feedforward(x)``, recomputed in the backward pass.

    Args:
        feedforward: maps tokens to tokens, each by itself, and has no state but its parameters.
        x_BLD: the tokens.
    """

    def run(x_BLD: Tensor, link: None) -> Made:
        return Made(feedforward(x_BLD), link)

    run = _in_same_modes(run, feedforward)
    return recomputed(run, tuple(feedforward.parameters()), x_BLD).output


def attend_in_slices(
    attention: MultiHeadActiveAttention,
    x_BLD: Tokens,
    previous: ScoreSources | None,
    *,
    keep_scores: bool,
) -> tuple[Tensor, ScoreSources | None]:
    """Return self-attention, recomputed in the backward pass, and what its scores are made from.

    Args:
        attention: the attention; its projections draw no random numbers.
        x_BLD: the tokens.
        previous: what the scores of earlier layers are made from.
        keep_scores: whether a later layer adds these scores to its own.
    """
    attentions, tokens, link = previous or ((), (), None)
    attend = _SelfAttention(attention, attentions, keep_scores=keep_scores)
    run = _in_same_modes(attend, attention, *attentions)
    output, link = recomputed(run, tuple(attention.parameters()), x_BLD, link, tokens)
    if link is None:
        return output, None
    return output, ScoreSources((*attentions, attention), (*tokens, x_BLD), link)


def _in_same_modes(run: Callable[..., Made], *parts: nn.Module) -> Callable[..., Made]:
    """Return ``run`` as it works now, whether or not the parts are put in another mode later.

    The network may be switched to evaluation between the two passes.
    """
    modes = [(module, module.training) for part in parts for module in part.modules()]

    def run_as_now(*tensors: Tensor | None) -> Made:
        with _modes(modes):
            return run(*tensors)

    return run_as_now


@contextmanager
def _modes(modes: Sequence[tuple[nn.Module, bool]]) -> Generator[None, None, None]:
    """Put modules into training or evaluation, each by itself, and back afterwards."""
    others = [(module, module.training) for module, mode in modes if module.training != mode]
    for module, was_training in others:
        module.training = not was_training
    try:
        yield
    finally:
        for module, was_training in others:
            module.training = was_training


class _SelfAttention:
    """Attends within a slice, with the scores of earlier layers projected from their tokens."""

    def __init__(
        self,
        attention: MultiHeadActiveAttention,
        earlier: Sequence[MultiHeadActiveAttention],
        *,
        keep_scores: bool,
    ) -> None:
        self.attention = attention
        self.earlier = earlier
        self.keep_scores = keep_scores
        self.is_linked = True

    def __call__(self, x_BLD: Tensor, link: Tensor | None, *tokens: Tensor) -> Made:
        with torch.no_grad():
            projections = [a.project(t) for a, t in zip(self.earlier, tokens, strict=True)]
        if link is not None:
            link = link.transpose(0, 1)
            if torch.is_grad_enabled() and not self.is_linked:
                projections = [_linked(p, one) for p, one in zip(projections, link, strict=True)]
        previous = ScoreFactors(tuple(projections), link) if link is not None else None
        output, factors = self.attention(x_BLD, previous=previous)
        assert factors is not None  # of self-attention there are some
        own, self.is_linked = factors.link, factors.link is not None
        if not self.keep_scores:
            return Made(output, None)
        if own is None:  # whoever computed hands gradients to the projections themselves
            own = cast(Tensor, _Link.apply(factors.projections[-1], link))
        return Made(output, own.transpose(0, 1))


class _Link(torch.autograd.Function):
    """A link [layers, B, L, 2 D] that takes gradients to a projection and to the link before."""

    @staticmethod
    def forward(ctx: Any, projection_BLD: Tensor, link: Tensor | None) -> Tensor:
        ctx.has_earlier = link is not None
        batch, length, packed = projection_BLD.shape
        layers = 1 if link is None else 1 + len(link)
        return projection_BLD.new_zeros(()).expand(layers, batch, length, packed // 3 * 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        return F.pad(grad[-1], (0, grad.shape[-1] // 2)), grad[:-1] if ctx.has_earlier else None


def _linked(projection_BLD: Tensor, link_BLD: Tensor) -> Tensor:
    """Return the projection, the gradients of whose queries and keys go to the link."""
    return projection_BLD + F.pad(link_BLD, (0, link_BLD.shape[-1] // 2))
