"""Multi-head active attention."""

import copy
from typing import NamedTuple, cast

from torch import Tensor, nn

from tsattn.nn.linear import Linear, apply_together
from tsattn.ops import Impl, ValueActivation, active_attention, self_attention
from tsattn.ops.activations import as_function
from tsattn.ops.impl import as_impl
from tsattn.tensors import Tokens


class ScoreFactors(NamedTuple):
    """Packed projections of one or several layers, [B, L, 3 D] each: queries, keys and values.

    The scores of all these layers together, ``scale * sum_l Q_l K_l'``, are one product, so that
    residual attention hands on these narrow tensors and never a [.., Q, K] one. The link is what
    `tsattn.ops.self_attention` returned with them.
    """

    projections: tuple[Tensor, ...]
    link: Tensor | None


class Attended(NamedTuple):
    """What attention returns: the output and, of self-attention, the factors of its scores."""

    output: Tensor
    factors: ScoreFactors | None


class MultiHeadActiveAttention(nn.Module):
    """Project to heads, attend to activated values, project back.

    ``out(concat_n softmax(Q_n K_n' / sqrt(W) + previous scores) sigma(V_n))``, with W = D / heads.

    Args:
        d_model: width D of the tokens.
        num_heads: number of heads; must divide ``d_model``.
        value_activation: nonlinearity of the projected values (bias included), one of
            `tsattn.ops.VALUE_ACTIVATIONS` or any elementwise callable or module; of a module every
            attention trains a copy of its own.
        weight_dropout: probability of dropping an attention weight.
        impl: who computes the attention, see `tsattn.ops.Impl`.

    Raises:
        ValueError: ``num_heads`` does not divide ``d_model``; a dropout outside [0, 1); unknown
            activation or impl.

    Source: equation 20 of the active-attention paper, in every head.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        value_activation: ValueActivation = "identity",
        weight_dropout: float = 0.0,
        impl: str = Impl.AUTO,
    ) -> None:
        super().__init__()
        if not 1 <= num_heads <= d_model or d_model % num_heads:
            raise ValueError(
                f"d_model must be a multiple of num_heads, got d_model={d_model} and "
                f"num_heads={num_heads}"
            )
        if not 0.0 <= weight_dropout < 1.0:
            raise ValueError(
                f"dropout of attention weights must be in [0, 1), got {weight_dropout}"
            )
        as_function(value_activation)
        as_impl(impl)
        if isinstance(value_activation, nn.Module):
            value_activation = copy.deepcopy(value_activation)
        self.num_heads = num_heads
        self.value_activation = value_activation
        self.weight_dropout = weight_dropout
        self.impl = impl
        self.query = Linear(d_model, d_model)
        self.key = Linear(d_model, d_model)
        self.value = Linear(d_model, d_model)
        self.out = Linear(d_model, d_model)

    def forward(
        self,
        query_BQD: Tokens,
        memory_BKD: Tensor | None = None,
        *,
        previous: ScoreFactors | None = None,
        is_causal: bool = False,
    ) -> Attended:
        """Attend from ``query`` to ``memory``, or to itself when there is no memory.

        Args:
            query_BQD: tokens that look.
            memory_BKD: tokens that are looked at.
            previous: factors of the scores of earlier layers, which are added to those of
                self-attention.
            is_causal: token ``i`` looks at tokens ``0..i`` only.
        """
        dropout_p = self.weight_dropout if self.training else 0.0
        if memory_BKD is None:
            return self._attend_within(query_BQD, previous, is_causal, dropout_p)
        if previous is not None:
            raise ValueError("scores of earlier layers can be added to self-attention only")
        (query,), (key, value) = (
            self._heads(query_BQD, self.query),
            self._heads(memory_BKD, self.key, self.value),
        )
        attended = active_attention(
            query, key, value, activation=self.value_activation, is_causal=is_causal,
            dropout_p=dropout_p, impl=self.impl,
        )  # fmt: skip
        output = cast(Tensor, attended)  # scores were not asked for
        return Attended(self.out(output.transpose(1, 2).flatten(2)), None)

    def project(self, x_BLD: Tokens) -> Tensor:
        """Return queries, keys and values of the same tokens side by side, [B, L, 3 D]."""
        return apply_together(x_BLD, self.query, self.key, self.value)

    def _attend_within(
        self, x_BLD: Tensor, previous: ScoreFactors | None, is_causal: bool, dropout_p: float
    ) -> Attended:
        earlier, link = previous if previous is not None else ((), None)
        own = self.project(x_BLD)
        output, link = self_attention(
            (*earlier, own),
            link,
            num_heads=self.num_heads,
            activation=self.value_activation,
            is_causal=is_causal,
            dropout_p=dropout_p,
            impl=self.impl,
        )
        return Attended(self.out(output), ScoreFactors((*earlier, own), link))

    def _heads(self, x_BLD: Tensor, *maps: nn.Module) -> list[Tensor]:
        """Apply several linear maps, and take the results apart into heads [B, N, L, W]."""
        parts = apply_together(x_BLD, *maps).chunk(len(maps), dim=-1)
        heads = (self.num_heads, parts[0].shape[-1] // self.num_heads)
        return [part.view(*part.shape[:2], *heads).transpose(1, 2) for part in parts]
