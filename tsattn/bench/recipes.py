"""The networks and batches that are timed: shipped recipes, on random data of their shape."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from tsattn.bench.ceilings import Product
from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn import MultiHeadActiveAttention
from tsattn.ops.impl import as_impl
from tsattn.resources import configs_dir

_NETWORKS: Mapping[str, type[ForecastNetwork]] = {
    "PatchTST": PatchTST,
    "EncoderDecoderTransformer": EncoderDecoderTransformer,
}


@dataclass(frozen=True)
class Batch:
    """A batch of windows: what the network is called with, and what it should say."""

    inputs: tuple[Tensor, ...]
    target: Tensor

    def double(self) -> "Batch":
        """Return the batch in float64."""
        return Batch(tuple(t.double() for t in self.inputs), self.target.double())


@dataclass(frozen=True)
class Recipe:
    """A shipped recipe at a size that is timed.

    Attributes:
        name: short name, as ``--only`` takes it.
        file: the recipe below ``configs``.
        channels: channels of its dataset.
        windows: windows of a batch; None takes the recipe's.
        recompute: whether layers are recomputed in the backward pass; None takes the recipe's.
    """

    name: str
    file: str
    channels: int
    windows: int | None = None
    recompute: bool | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe file."""
        return yaml.safe_load((configs_dir() / self.file).read_text(encoding="utf-8"))

    @property
    def batch(self) -> int:
        """Windows of a batch."""
        return self.windows or self.settings["data"]["batch_size"]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, context and horizon."""
        data = self.settings["data"]
        return self.channels, data["context"], data["horizon"]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the recipe gives its network besides the sizes."""
        given = self.settings["model"]["network"]["init_args"]
        return given if self.recompute is None else given | {"recompute": self.recompute}

    @property
    def is_patchtst(self) -> bool:
        """Whether its network is a PatchTST."""
        return self.settings["model"]["network"]["class_path"] == "PatchTST"

    def with_batch(self, windows: int) -> "Recipe":
        """Return the recipe with another number of windows."""
        return replace(self, windows=windows)

    def network(self, **changes: Any) -> ForecastNetwork:
        """Build its network, always with the same weights."""
        kind = _NETWORKS[self.settings["model"]["network"]["class_path"]]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(*self.sizes, **self.arguments | changes)

    def draw(self, seed: int = 1) -> Batch:
        """Draw a batch of random windows, and calendar features where the network uses them."""
        channels, context, horizon = self.sizes
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        past = normal(self.batch, context, channels).cumsum(dim=1) / context**0.5
        inputs: tuple[Tensor, ...] = (past,)
        if not self.is_patchtst:
            marks = torch.rand(self.batch, context + horizon, 4, generator=generator) - 0.5
            inputs += (marks[:, :context].contiguous(), marks[:, context:].contiguous())
        return Batch(inputs, normal(self.batch, horizon, channels))

    @property
    def products(self) -> list[Product]:
        """The dense products of a layer on the recipe's tokens, whose rates are the ceiling."""
        width, hidden = self.arguments["d_model"], self.arguments["d_ff"]
        tokens = self.batch * self.sizes[1]
        if self.is_patchtst:
            network = self.network()
            assert isinstance(network, PatchTST)
            tokens = self.batch * self.channels * network.embed.num_patches
        shapes = ((width, width), (width, hidden), (hidden, width))
        return [Product(tokens, *shape) for shape in shapes]


RECIPES = (
    Recipe("etth1", "patchtst/etth1.yaml", 7),
    Recipe("weather", "patchtst/weather.yaml", 21, windows=32),
    Recipe("illness", "patchtst/illness.yaml", 7),
    Recipe("transformer", "transformer/etth1.yaml", 7),
)

LARGE_RECIPES = (
    Recipe("weather", "patchtst/weather.yaml", 21),
    Recipe("electricity", "patchtst/electricity.yaml", 321),
    Recipe("traffic", "patchtst/traffic.yaml", 862),
)
"""Whole batches, whose memory is measured."""


def with_impl(network: ForecastNetwork, impl: str) -> ForecastNetwork:
    """Return a copy of a network whose attention is computed by this implementation.

    Raises:
        ValueError: no implementation has this name.
    """
    as_impl(impl)
    copied = copy.deepcopy(network)
    for part in copied.modules():
        if isinstance(part, MultiHeadActiveAttention):
            part.impl = impl
    return copied
