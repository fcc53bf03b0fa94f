"""One layer of a decoder."""

from torch import Tensor, nn

from tsattn.nn.attention import MultiHeadActiveAttention
from tsattn.nn.dropout import Dropout
from tsattn.tensors import Tokens


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward; post-norm throughout.

    Each branch: ``x = LayerNorm(x + drop(branch(x)))``.

    Args:
        self_attention: attention among the decoder's tokens, causal.
        cross_attention: attention to the encoder's tokens, unmasked.
        feedforward: maps tokens to tokens.
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

    def forward(self, x_BQD: Tokens, memory_BKD: Tensor) -> Tensor:
        """Return the decoder's tokens after the three branches."""
        drop_and_add = self.dropout.added_to
        x = x_BQD
        x = self.self_norm(drop_and_add(x, self.self_attention(x, is_causal=True).output))
        x = self.cross_norm(drop_and_add(x, self.cross_attention(x, memory_BKD).output))
        return self.feedforward_norm(drop_and_add(x, self.feedforward(x)))
