"""How the mixtures of a network routed the test windows, and what their gates cost."""

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe import GateCost, MoEFeedForward, gate_cost
from tsattn.nn.moe.balance import over_ranks
from tsattn.nn.moe.gates.overhead import quadratic_part, total_cost
from tsattn.nn.moe.statistics import load_share, selection_entropy
from tsattn.training.task import ForecastTask


def mixtures(network: nn.Module) -> Iterator[tuple[str, MoEFeedForward]]:
    """Yield every mixture of experts of a network with its name."""
    for name, module in network.named_modules():
        if isinstance(module, MoEFeedForward):
            yield name, module


def short_name(layer: str) -> str:
    """Return ``layer 0`` for the mixture ``layers.0.feedforward``, and the like."""
    stack, _, rest = layer.removesuffix(".feedforward").partition(".")
    stack = {"layers": "layer", "encoder": "encoder layer", "decoder": "decoder layer"}.get(stack)
    return f"{stack} {rest}" if stack and rest.isdigit() else layer


class RoutingOfTest(Callback):
    """Counts how often each expert of each layer worked for the test windows of all processes."""

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from nothing, and watch every mixture."""
        self.counts = {}
        if not isinstance(pl_module, ForecastTask):
            return
        for name, layer in mixtures(pl_module.network):
            # zeros, so that processes without a window take part in the sum
            self.counts[name] = torch.zeros(
                layer.num_experts, dtype=torch.int64, device=pl_module.device
            )
            self._hooks.append(layer.register_forward_hook(self._counting(name)))

    def _counting(self, name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Fed) -> None:
            self.counts[name] = self.counts[name] + output.routing.counts_E

        return count

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop watching, and add up the counts of all processes."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.counts = {name: over_ranks(counts) for name, counts in self.counts.items()}

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()

    def summary(self, trained: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
        """Return, for each layer, its name, each expert's share of the load, and its entropy.

        Args:
            trained: what else there is to say of a layer, by its name.
        """
        return [
            {
                "layer": name,
                "load": load_share(counts).tolist(),
                "selection_entropy": selection_entropy(counts),
                **trained.get(name, {}),
            }
            for name, counts in self.counts.items()
        ]


def describe_mixtures(network: nn.Module) -> str:
    """Return one line on a network's mixtures and the cost of their gates, or nothing.

    Of quadratic gates, also of those inside another gate, the cost of the quadratic terms alone is
    added: the overhead of appendix G of the active-attention paper.
    """
    found = list(mixtures(network))
    if not found:
        return ""
    _, first = found[0]
    gates = _cost_line([gate_cost(layer.gate) for _, layer in found])
    overhead = [cost for _, layer in found if (cost := quadratic_part(layer.gate))]
    return (
        f"mixture of experts: {len(found)} layers of {first.num_experts} experts, {first.top_k} "
        f"for each token; {type(first.gate).__name__}: {gates} per token and layer"
        + (f"; of these the quadratic terms: {_cost_line(overhead)}" if overhead else "")
    )


def _cost_line(costs: list[GateCost]) -> str:
    """Return what the gates of all layers store, and what the first one computes."""
    total = total_cost(costs)
    free = "" if total.free is None else f" ({total.free:,} free)"
    return f"{total.stored:,} parameters{free}, {costs[0].flops:,} operations"
