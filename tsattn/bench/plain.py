"""Our networks said with torch's own modules: what they are compared with and checked against.

Same weights, same mathematics, same dropout; nothing of `tsattn.ops` or `tsattn.nn`. The names of
the parts are those of the published code, so that they take what `interop.published` writes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.interop.published import to_state_dict
from tsattn.models import ForecastNetwork, PatchTST


class _Attention(nn.Module):
    """Scores, softmax, dropout and values one after the other."""

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k = self._split(self.query_projection(x)), self._split(self.key_projection(memory))
        v = self._split(self.value_projection(memory))
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        attended = self.dropout(torch.softmax(scores, dim=-1)) @ v
        return self.out_projection(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Layer(nn.Module):
    """An encoder layer, or with ``decoder`` a decoder layer; post-norm."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, *, decoder: bool
    ) -> None:
        super().__init__()
        self.decoder = decoder
        if decoder:
            self.self_attention = _Attention(width, heads, dropout, causal=True)
            self.cross_attention = _Attention(width, heads, dropout)
            self.norm3 = nn.LayerNorm(width)
        else:
            self.attention = _Attention(width, heads, dropout)
        self.conv1, self.conv2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        attention = self.self_attention if self.decoder else self.attention
        x = self.norm1(x + self.dropout(attention(x, x)))
        if memory is not None:
            x = self.norm2(x + self.dropout(self.cross_attention(x, memory)))
        hidden = self.dropout(F.gelu(self.conv1(x)))
        last = self.norm3 if self.decoder else self.norm2
        return last(x + self.dropout(self.conv2(hidden)))


class _Embedding(nn.Module):
    def __init__(self, channels: int, width: int, marks: int, dropout: float) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, width, 3, padding=1, padding_mode="circular", bias=False)
        self.value_embedding = nn.ModuleDict({"tokenConv": conv})
        linear = nn.Linear(marks, width, bias=False)
        self.temporal_embedding = nn.ModuleDict({"embed": linear})
        self.position_embedding = nn.Module()
        self.position_embedding.register_buffer("pe", torch.zeros(1, 5000, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor) -> Tensor:
        values = self.value_embedding["tokenConv"](x.transpose(1, 2)).transpose(1, 2)
        positions = self.position_embedding.get_buffer("pe")[:, : x.shape[1]]
        return self.dropout(values + self.temporal_embedding["embed"](marks) + positions)


class PlainTransformer(nn.Module):
    """An `EncoderDecoderTransformer` of torch's own modules.

    Args:
        network: the network whose sizes and weights it takes.
    """

    def __init__(self, network: ForecastNetwork) -> None:
        super().__init__()
        given = network.init_args
        width, dropout = given["d_model"], given["dropout"]
        self.horizon = network.horizon
        self.label = network.context // 2 if given["label"] is None else given["label"]
        sizes = (width, given["num_heads"], given["d_ff"], dropout)
        embedding = (network.channels, width, given["calendar_features"], dropout)
        self.enc_embedding, self.dec_embedding = _Embedding(*embedding), _Embedding(*embedding)
        encoder = [_Layer(*sizes, decoder=False) for _ in range(given["encoder_layers"])]
        self.encoder = nn.ModuleDict(
            {"attn_layers": nn.ModuleList(encoder), "norm": nn.LayerNorm(width)}
        )
        decoder = [_Layer(*sizes, decoder=True) for _ in range(given["decoder_layers"])]
        self.decoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(decoder),
                "norm": nn.LayerNorm(width),
                "projection": nn.Linear(width, network.channels),
            }
        )
        state = to_state_dict(network)
        self.load_state_dict(
            {k: t.squeeze(-1) if ".conv" in k and t.ndim == 3 else t for k, t in state.items()}
        )

    def forward(self, x_BTC: Tensor, marks_BTM: Tensor, future_marks_BHM: Tensor) -> Tensor:
        """Forecast the horizon, [batch, horizon, channels]."""
        memory = self.enc_embedding(x_BTC, marks_BTM)
        for layer in self.encoder["attn_layers"].children():
            memory = layer(memory)
        memory = self.encoder["norm"](memory)
        start = x_BTC.shape[1] - self.label
        values = F.pad(x_BTC[:, start:], (0, 0, 0, self.horizon))
        y = self.dec_embedding(values, torch.cat([marks_BTM[:, start:], future_marks_BHM], dim=1))
        for layer in self.decoder["layers"].children():
            y = layer(y, memory)
        return self.decoder["projection"](self.decoder["norm"](y))[:, -self.horizon :]


class _PatchLayer(nn.Module):
    """A post-norm layer with batch norm and residual scores."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        names = ("W_Q", "W_K", "W_V")
        projections: dict[str, nn.Module] = {name: nn.Linear(width, width) for name in names}
        out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.self_attn = nn.ModuleDict(projections | {"to_out": out})
        self.norm_attn = nn.Sequential(nn.Identity(), nn.BatchNorm1d(width))
        self.ff = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.norm_ffn = nn.Sequential(nn.Identity(), nn.BatchNorm1d(width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, previous: Tensor | float) -> tuple[Tensor, Tensor]:
        q, k, v = (self._split(self.self_attn[name](x)) for name in ("W_Q", "W_K", "W_V"))
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + previous
        attended = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.self_attn["to_out"](attended))
        x = self.norm_attn(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.dropout(self.ff(x))
        return self.norm_ffn(x.transpose(1, 2)).transpose(1, 2), scores

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class PlainPatchTST(nn.Module):
    """A `PatchTST` of the shipped recipes of torch's own modules.

    Args:
        network: the network whose sizes and weights it takes.
    """

    def __init__(self, network: ForecastNetwork) -> None:
        super().__init__()
        given = network.init_args
        width, dropout = given["d_model"], given["dropout"]
        self.patch, self.stride = given["patch_length"], given["stride"]
        patches = (network.context - self.patch) // self.stride + 2
        layers = [
            _PatchLayer(width, given["num_heads"], given["d_ff"], dropout)
            for _ in range(given["num_layers"])
        ]
        backbone: Any = nn.Module()
        backbone.W_P = nn.Linear(self.patch, width)
        backbone.W_pos = nn.Parameter(torch.empty(patches, width))
        backbone.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        head = nn.ModuleDict({"linear": nn.Linear(width * patches, network.horizon)})
        self.model = nn.ModuleDict({"backbone": backbone, "head": head})
        self.layers, self.dropout = layers, nn.Dropout(dropout)
        state = to_state_dict(network)
        self.load_state_dict({k: t for k, t in state.items() if not k.endswith(".scale")})

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Forecast the horizon, [batch, horizon, channels]."""
        mean = x_BTC.mean(dim=1, keepdim=True)
        deviation = torch.sqrt(x_BTC.var(dim=1, keepdim=True, unbiased=False) + 1e-5)
        x = ((x_BTC - mean) / deviation).transpose(1, 2)
        x = F.pad(x, (0, self.stride), mode="replicate").unfold(-1, self.patch, self.stride)
        backbone: Any = self.model["backbone"]
        tokens = self.dropout(backbone.W_P(x) + backbone.W_pos)
        y, scores = tokens.flatten(0, 1), 0.0
        for layer in self.layers:
            y, scores = layer(y, scores)
        features = y.view_as(tokens).transpose(2, 3).flatten(2)
        head: Any = self.model["head"]
        y = head["linear"](features).transpose(1, 2)
        return y * deviation + mean


def plain_of(network: ForecastNetwork) -> nn.Module:
    """Return a network of the shipped recipes as torch's own modules, with the same weights."""
    kind = PlainPatchTST if isinstance(network, PatchTST) else PlainTransformer
    return kind(network)
