"""The dense feed-forward."""

from torch import Tensor, nn

from tsattn.nn.as_built import is_as_built
from tsattn.nn.dropout import Dropout, drop_after_gelu
from tsattn.nn.linear import LINEAR, Linear
from tsattn.ops import feedforward


class FeedForward(nn.Module):
    """``W_2 dropout(gelu(W_1 x + b_1)) + b_2`` on every token, with the exact GELU.

    Args:
        d_model: width of the tokens.
        d_ff: width of the hidden layer; ``None`` means as in the network, alone ``4 d_model``.
        dropout: probability of dropping a hidden unit; ``None`` means as in the network, alone 0.
    """

    def __init__(self, d_model: int, d_ff: int | None = None, dropout: float | None = None) -> None:
        super().__init__()
        d_ff = 4 * d_model if d_ff is None else d_ff
        self.expand = Linear(d_model, d_ff)
        self.dropout = Dropout(0.0 if dropout is None else dropout)
        self.contract = Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [..., d_model] to tokens of the same shape."""
        first, last, drop = self.expand, self.contract, self.dropout
        maps_are_plain = is_as_built(first, *LINEAR) and is_as_built(last, *LINEAR)
        if maps_are_plain and is_as_built(drop, Dropout):
            weights = (first.weight, first.bias, last.weight, last.bias)
            return feedforward(x, *weights, p=drop.rate)
        return self.contract(drop_after_gelu(drop, self.expand(x)))
