"""One layer of an encoder."""

from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.attention import MultiHeadActiveAttention, ScoreFactors
from tsattn.nn.dropout import Dropout, joint_rate
from tsattn.nn.norm import normalise_sum
from tsattn.ops import add_dropout
from tsattn.tensors import Tokens


class Encoded(NamedTuple):
    """Tokens after a layer and, where they are kept, the factors of its attention scores."""

    tokens: Tensor
    factors: ScoreFactors | None


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with dropout, a residual path and a normalisation.

    Post-norm (the default): ``x = norm(x + drop(branch(x)))``; pre-norm:
    ``x = x + drop(branch(norm(x)))``.

    Args:
        attention: the attention.
        feedforward: maps tokens to tokens.
        attention_norm: normalisation of the attention's residual path.
        feedforward_norm: normalisation of the feed-forward's residual path.
        dropout: probability of dropping a feature of a branch before it is added.
        attention_dropout: a second dropout on the attention's output, before ``dropout``.
        prenorm: normalise before the branch instead of after the addition.
        keep_scores: add the earlier layers' attention scores and hand on the sum, as factors.

    Source: Vaswani et al. 2017. Residual scores and the doubled dropout: published PatchTST
    code; the two dropouts are drawn as the one of their joint rate.
    """

    def __init__(
        self,
        attention: MultiHeadActiveAttention,
        feedforward: nn.Module,
        attention_norm: nn.Module,
        feedforward_norm: nn.Module,
        *,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        prenorm: bool = False,
        keep_scores: bool = False,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feedforward = feedforward
        self.attention_norm = attention_norm
        self.feedforward_norm = feedforward_norm
        self.attention_dropout = Dropout(attention_dropout)
        self.dropout = Dropout(dropout)
        self.prenorm = prenorm
        self.keep_scores = keep_scores

    def forward(self, x_BLD: Tokens, previous: ScoreFactors | None = None) -> Encoded:
        """Return the tokens after both branches."""
        twice = joint_rate(self.attention_dropout.rate, self.dropout.rate)
        if self.prenorm:
            attended = self.attention(self.attention_norm(x_BLD), previous=previous)
            x = add_dropout(x_BLD, attended.output, twice)
            x = self.dropout.added_to(x, self.feedforward(self.feedforward_norm(x)))
        else:
            attended = self.attention(x_BLD, previous=previous)
            x = normalise_sum(self.attention_norm, x_BLD, attended.output, twice)
            x = normalise_sum(self.feedforward_norm, x, self.feedforward(x), self.dropout.rate)
        return Encoded(x, attended.factors if self.keep_scores else None)
