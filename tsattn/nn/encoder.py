"""One layer of an encoder."""

from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.attention import MultiHeadActiveAttention
from tsattn.tensors import Scores, Tokens


class Encoded(NamedTuple):
    """Tokens after a layer and, where they are kept, the layer's attention scores."""

    tokens: Tensor
    scores: Tensor | None


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
        keep_scores: add the previous layer's attention scores and hand on the sum.

    Source: Vaswani et al. 2017. Residual scores and the doubled dropout: published PatchTST code.
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
        self.attention_dropout = nn.Dropout(attention_dropout)
        self.dropout = nn.Dropout(dropout)
        self.prenorm = prenorm
        self.keep_scores = keep_scores

    def forward(self, x_BLD: Tokens, prev_scores: Scores | None = None) -> Encoded:
        """Return the tokens after both branches."""
        x = self.attention_norm(x_BLD) if self.prenorm else x_BLD
        attended = self.attention(x, prev_scores=prev_scores, return_scores=self.keep_scores)
        x = x_BLD + self.dropout(self.attention_dropout(attended.output))
        if self.prenorm:
            x = x + self.dropout(self.feedforward(self.feedforward_norm(x)))
        else:
            x = self.attention_norm(x)
            x = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return Encoded(x, attended.scores)
