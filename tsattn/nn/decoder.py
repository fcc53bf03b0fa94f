"""One layer of a decoder."""

from typing import NamedTuple

from torch import Tensor, nn

from tsattn.nn.attention import MultiHeadActiveAttention
from tsattn.nn.auxiliary import Losses, feed
from tsattn.nn.dropout import Dropout
from tsattn.nn.norm import normalise_sum
from tsattn.tensors import Tokens


class Decoded(NamedTuple):
    """What a layer returns.

    Attributes:
        tokens: tokens after the three branches.
        losses: auxiliary losses of the feed-forward by name, mostly none.
    """

    tokens: Tensor
    losses: Losses


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward; post-norm throughout.

    Each branch: ``x = LayerNorm(x + drop(branch(x)))``.

    Args:
        self_attention: attention among the decoder's tokens, causal.
        cross_attention: attention to the encoder's tokens, unmasked.
        feedforward: maps tokens to tokens, or to `tsattn.nn.auxiliary.Fed`.
        d_model: width of the tokens.
        dropout: probability of dropping a feature of a branch before it is added.

    Source: Vaswani et al. 2017.
    """

    def __init__(
        self,
        self_attention: MultiHeadActiveAttention,
        cross_attention: MultiHeadActiveAttention,
        feedforward: nn.Module,
        d_model: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.feedforward = feedforward
        self.self_norm = nn.LayerNorm(d_model)
        self.cross_norm = nn.LayerNorm(d_model)
        self.feedforward_norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x_BQD: Tokens, memory_BKD: Tensor, *, last: int | None = None) -> Decoded:
        """Return the decoder's tokens after the three branches.

        Args:
            x_BQD: tokens of the decoder.
            memory_BKD: tokens of the encoder.
            last: go on with this many of the last tokens alone once all have been attended to, for
                a layer whose other outputs nobody reads.
        """
        start = 0 if last is None else x_BQD.shape[1] - last
        attended = self.self_attention(x_BQD, is_causal=True).output[:, start:]
        x = self._add(self.self_norm, x_BQD[:, start:], attended)
        x = self._add(self.cross_norm, x, self.cross_attention(x, memory_BKD).output)
        fed = feed(self.feedforward, x)
        return Decoded(self._add(self.feedforward_norm, x, fed.output), fed.losses)

    def _add(self, norm: nn.Module, x_BQD: Tensor, branch_BQD: Tensor) -> Tensor:
        return normalise_sum(norm, x_BQD, branch_BQD, self.dropout)
