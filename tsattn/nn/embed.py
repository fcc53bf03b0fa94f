"""From values to tokens."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.dropout import Dropout
from tsattn.nn.linear import Linear
from tsattn.tensors import Context


class PatchEmbedding(nn.Module):
    """Cut every channel into overlapping patches and project each to a token.

    Token p is ``W x[p * stride : p * stride + patch_length] + b + position_p``. With
    ``end_padding`` the last value is repeated ``stride`` times first, which adds one patch.

    Args:
        context: length of the window.
        patch_length: length of a patch, at most ``context``.
        stride: steps between the starts of two patches.
        d_model: width of the tokens.
        dropout: probability of dropping a feature of a token.
        end_padding: repeat the last value before cutting.

    Raises:
        ValueError: a patch longer than the context, or a length or stride below one.

    Source: Nie et al. 2023, "A time series is worth 64 words", section 3.1.
    """

    def __init__(
        self,
        context: int,
        patch_length: int,
        stride: int,
        d_model: int,
        *,
        dropout: float = 0.0,
        end_padding: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= patch_length <= context or stride < 1:
            raise ValueError(
                f"a patch must fit into the context: got patch_length={patch_length}, "
                f"stride={stride}, context={context}; expected 1 <= patch_length <= context and "
                f"stride >= 1"
            )
        self.patch_length = patch_length
        self.stride = stride
        self.padding = stride if end_padding else 0
        self.num_patches = (context + self.padding - patch_length) // stride + 1
        self.project = Linear(patch_length, d_model)
        self.position = nn.Parameter(torch.empty(self.num_patches, d_model).uniform_(-0.02, 0.02))
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Context) -> Tensor:
        """Return the tokens [B, C, P, D]."""
        return self.dropout(self.project(self.cut(x_BTC)) + self.position)

    def cut(self, x_BTC: Context) -> Tensor:
        """Return the patches [B, C, P, patch_length]."""
        x_BCT = x_BTC.transpose(1, 2)
        if self.padding:
            x_BCT = F.pad(x_BCT, (0, self.padding), mode="replicate")
        return x_BCT.unfold(-1, self.patch_length, self.stride)


class CalendarEmbedding(nn.Module):
    """Sum of the values' projection, the position and the calendar's projection.

    The values go through a circular convolution of three steps without bias, the calendar
    features through a linear map without bias; positions are fixed sines and cosines.

    Args:
        channels: number of channels.
        d_model: width of the tokens.
        calendar_features: number M of calendar features; 0 leaves the calendar out.
        dropout: probability of dropping a feature of a token.

    Source: Zhou et al. 2021, "Informer", appendix B; positions after Vaswani et al. 2017.
    """

    def __init__(
        self, channels: int, d_model: int, *, calendar_features: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.value = nn.Conv1d(
            channels, d_model, kernel_size=3, padding=1, padding_mode="circular", bias=False
        )
        nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.calendar = (
            nn.Linear(calendar_features, d_model, bias=False) if calendar_features else None
        )
        self.dropout = Dropout(dropout)

    def forward(self, x_BLC: Tensor, marks_BLM: Tensor | None) -> Tensor:
        """Return the tokens [B, L, D]."""
        tokens = self.value(x_BLC.transpose(1, 2)).transpose(1, 2)
        if self.calendar is not None:
            tokens = tokens + self.calendar(marks_BLM)
        positions = sinusoidal_positions(x_BLC.shape[1], tokens.shape[-1], tokens.device)
        return self.dropout(tokens + positions.to(tokens.dtype))


def sinusoidal_positions(length: int, d_model: int, device: torch.device | None = None) -> Tensor:
    """Return the position table [length, d_model] in float32.

    ``sin(l / 10000^(2i / D))`` at the even, ``cos`` of the same at the odd features.
    """
    position = torch.arange(length, dtype=torch.float32, device=device)[:, None]
    even = torch.arange(0, d_model, 2, dtype=torch.float32, device=device)
    angle = position * torch.exp(even * -(math.log(10000.0) / d_model))
    table = torch.empty(length, d_model, device=device)
    table[:, 0::2] = torch.sin(angle)
    table[:, 1::2] = torch.cos(angle[:, : d_model // 2])
    return table
