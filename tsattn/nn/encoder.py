"""One layer of an encoder."""

from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.attention import MultiHeadActiveAttention, ScoreFactors
from tsattn.nn.auxiliary import Fed, Losses, feed
from tsattn.nn.dropout import Dropout, drop_outside
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.norm import normalise, normalise_sum
from tsattn.nn.slices import ScoreSources, attend_in_slices, feed_in_slices
from tsattn.ops import add_dropout
from tsattn.tensors import Tokens


class Encoded(NamedTuple):
    """What a layer returns.

    Attributes:
        tokens: tokens after both branches.
        factors: factors of the attention scores, where they are kept; of layers that recompute,
            what they are made from.
        losses: auxiliary losses of the feed-forward by name, mostly none.
    """

    tokens: Tensor
    factors: ScoreFactors | ScoreSources | None
    losses: Losses


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with dropout, a residual path and a normalisation.

    Post-norm (the default): ``x = norm(x + drop(branch(x)))``; pre-norm:
    ``x = x + drop(branch(norm(x)))``.

    Args:
        attention: the attention.
        feedforward: maps tokens to tokens, or to `tsattn.nn.auxiliary.Fed`.
        attention_norm: normalisation of the attention's residual path.
        feedforward_norm: normalisation of the feed-forward's residual path.
        dropout: probability of dropping a feature of a branch before it is added.
        attention_dropout: a second dropout on the attention's output, before ``dropout``.
        prenorm: normalise before the branch instead of after the addition.
        keep_scores: add the earlier layers' attention scores and hand on the sum, as factors.
        recompute: keep only the tokens between the branches, and compute the inside of attention
            and feed-forward again in the backward pass, see `tsattn.nn.slices`.

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
        recompute: bool = False,
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
        self.recompute = recompute

    def forward(
        self, x_BLD: Tokens, previous: ScoreFactors | ScoreSources | None = None
    ) -> Encoded:
        """Return the tokens after both branches.

        Raises:
            ValueError: ``previous`` is from a layer that recomputes and this one does not, or the
                other way round.
        """
        twice = (self.attention_dropout, self.dropout)
        if self.prenorm:
            attended, factors = self._attend(normalise(self.attention_norm, x_BLD), previous)
            x = add_dropout(x_BLD, *drop_outside(attended, *twice))
            fed = self._feed(normalise(self.feedforward_norm, x))
            x = add_dropout(x, *drop_outside(fed.output, self.dropout))
        else:
            attended, factors = self._attend(x_BLD, previous)
            x = normalise_sum(self.attention_norm, x_BLD, attended, *twice)
            del attended  # nobody needs it any more, and it is as large as the batch
            fed = self._feed(x)
            x = normalise_sum(self.feedforward_norm, x, fed.output, self.dropout)
        return Encoded(x, factors, fed.losses)

    def _attend(
        self, x_BLD: Tensor, previous: ScoreFactors | ScoreSources | None
    ) -> tuple[Tensor, ScoreFactors | ScoreSources | None]:
        """Return the output of the attention, and the factors where they are kept."""
        if self.recompute and not isinstance(previous, ScoreFactors):
            return attend_in_slices(self.attention, x_BLD, previous, keep_scores=self.keep_scores)
        if self.recompute or isinstance(previous, ScoreSources):
            raise ValueError("layers that add up their scores must all recompute, or none of them")
        attended = self.attention(x_BLD, previous=previous)
        return attended.output, attended.factors if self.keep_scores else None

    def _feed(self, x_BLD: Tensor) -> Fed:
        """Apply the feed-forward; what a mixture does with a token depends on the whole batch."""
        if self.recompute and type(self.feedforward) is FeedForward:
            return Fed(feed_in_slices(self.feedforward, x_BLD), {})
        return feed(self.feedforward, x_BLD)
