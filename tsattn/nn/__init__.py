"""Modules that own parameters: the parts the networks are built from."""

from tsattn.nn.attention import MultiHeadActiveAttention
from tsattn.nn.decoder import DecoderLayer
from tsattn.nn.embed import CalendarEmbedding, PatchEmbedding
from tsattn.nn.encoder import EncoderLayer
from tsattn.nn.feedforward import FeedForward
from tsattn.nn.head import ForecastHead
from tsattn.nn.norm import RevIN, token_norm
from tsattn.nn.quantiles import QuantileLevels

__all__ = [
    "CalendarEmbedding",
    "DecoderLayer",
    "EncoderLayer",
    "FeedForward",
    "ForecastHead",
    "MultiHeadActiveAttention",
    "PatchEmbedding",
    "QuantileLevels",
    "RevIN",
    "token_norm",
]
