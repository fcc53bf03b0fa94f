"""Multi-head active attention."""

import copy
from typing import NamedTuple

from torch import Tensor, nn

from tsattn.ops import Impl, ValueActivation, active_attention
from tsattn.ops.activations import as_function
from tsattn.ops.impl import as_impl
from tsattn.tensors import Scores, Tokens


class Attended(NamedTuple):
    """What attention returns: the output and, where they are kept, its scores."""

    output: Tensor
    scores: Tensor | None


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
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(
        self,
        query_BQD: Tokens,
        memory_BKD: Tensor | None = None,
        *,
        prev_scores: Scores | None = None,
        return_scores: bool = False,
        is_causal: bool = False,
    ) -> Attended:
        """Attend from ``query`` to ``memory``, or to itself when there is no memory."""
        memory = query_BQD if memory_BKD is None else memory_BKD
        result = active_attention(
            self._heads(self.query(query_BQD)),
            self._heads(self.key(memory)),
            self._heads(self.value(memory)),
            activation=self.value_activation,
            prev_scores=prev_scores,
            return_scores=return_scores,
            is_causal=is_causal,
            dropout_p=self.weight_dropout if self.training else 0.0,
            impl=self.impl,
        )
        output, scores = result if isinstance(result, tuple) else (result, None)
        return Attended(self.out(output.transpose(1, 2).flatten(2)), scores)

    def _heads(self, x_BLD: Tensor) -> Tensor:
        batch, length, _ = x_BLD.shape
        return x_BLD.view(batch, length, self.num_heads, -1).transpose(1, 2)
