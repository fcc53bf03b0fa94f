"""The dense feed-forward."""

from torch import Tensor, nn

from tsattn.nn.dropout import Dropout
from tsattn.nn.linear import Linear, is_plain
from tsattn.ops import feedforward


class FeedForward(nn.Module):
    """``W_2 dropout(gelu(W_1 x + b_1)) + b_2`` on every token, with the exact GELU.

    Args:
        d_model: width of the tokens.
        d_ff: width of the hidden layer.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = Linear(d_model, d_ff)
        self.dropout = Dropout(dropout)
        self.contract = Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [..., d_model] to tokens of the same shape."""
        first, last = self.expand, self.contract
        if is_plain(first) and is_plain(last):
            weights = (first.weight, first.bias, last.weight, last.bias)
            return feedforward(x, *weights, p=self.dropout.rate)
        return self.contract(self.dropout.after_gelu(self.expand(x)))
