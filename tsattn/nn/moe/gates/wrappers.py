"""Gates built from gates: a falling temperature, and two levels."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsattn.nn.moe.gates.base import Gate, build_gate
from tsattn.nn.moe.gates.linear import LinearGate
from tsattn.nn.moe.gates.overhead import gate_cost
from tsattn.nn.stepping import Stepping

GateFactory = Callable[[int, int], nn.Module]
"""Builds a gate from ``d_model`` and ``num_experts``; a gate's class is one."""

Decay = Literal["geometric", "linear"]


class DenseToSparse(Gate, Stepping):
    """``gate(x) / tau``, with a temperature tau that falls from ``start`` to ``end``.

    After t of the ``steps`` optimiser steps tau is ``start (end / start)^(t / steps)``, or with
    linear decay ``start + (end - start) t / steps``, and ``end`` from then on. Until then all
    experts are chosen (`dense`), afterwards the layer's top-K. The number of steps taken is part of
    the state, so a resumed training goes on where it was, and evaluation uses the tau of training.

    Args:
        gate: the gate that is divided.
        start: temperature at the first step, positive.
        end: temperature after the last one, positive.
        steps: optimiser steps that the fall takes, at least 1.
        decay: ``geometric`` or ``linear``.

    Raises:
        ValueError: a temperature that is not positive or rises, no steps, or an unknown decay.

    Source: Nie et al. 2021, "Dense-to-sparse gate for mixture-of-experts".
    """

    step: Tensor

    def __init__(
        self, gate: nn.Module, start: float, end: float, steps: int, decay: Decay = "geometric"
    ) -> None:
        super().__init__(*_sizes(gate))
        if not 0 < end <= start or steps < 1:
            raise ValueError(
                "a temperature must fall between positive numbers in at least one step, got "
                f"start={start}, end={end}, steps={steps}"
            )
        if decay not in ("geometric", "linear"):
            raise ValueError(f"unknown decay {decay!r}; expected geometric or linear")
        self.gate = gate
        self.start, self.end, self.steps, self.decay = start, end, steps, decay
        self.normalisation = getattr(gate, "normalisation", "topk_softmax")
        self._is_falling = True
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the divided logits."""
        return self.gate(x_ND) / self.temperature().to(x_ND.dtype)

    def temperature(self) -> Tensor:
        """Return the temperature in force, a scalar."""
        share = (self.step.double() / self.steps).clamp_max(1.0)
        if self.decay == "linear":
            return self.start + (self.end - self.start) * share
        return self.start * (self.end / self.start) ** share

    def after_step(self) -> None:
        """Count an optimiser step."""
        self.step += 1
        self._compare()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # pyright: ignore
        self._compare()

    def _compare(self) -> None:
        self._is_falling = int(self.step) < self.steps

    @property
    def dense(self) -> bool:
        """Whether all experts are to be chosen for now."""
        return self._is_falling or is_dense(self.gate)

    @property
    def free_parameters(self) -> int | None:
        """Numbers that the logits can tell apart: those of the gate that is divided."""
        return gate_cost(self.gate).free

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        return gate_cost(self.gate).flops + self.num_experts


class Hierarchical(Gate):
    """Two levels, ``p(e) = p(g(e)) p(e | g(e))``: a group, then an expert within it.

    The logits are ``log p(e)``. Group g holds the experts ``g E/G .. (g + 1) E/G - 1``. All experts
    are chosen as long as one of the gates is a `DenseToSparse` that falls.

    Args:
        groups_gate: gate over the G groups.
        experts_gate: gate over all E experts; its softmax is taken within each group.
        groups: number G of groups.

    Raises:
        ValueError: experts that cannot be divided into the groups, or gates of other sizes.

    Source: Jordan and Jacobs 1994.
    """

    def __init__(self, groups_gate: nn.Module, experts_gate: nn.Module, groups: int) -> None:
        super().__init__(*_sizes(experts_gate))
        if groups < 1 or self.num_experts % groups:
            raise ValueError(
                f"{self.num_experts} experts cannot be divided into {groups} equal groups; choose "
                "a divisor of num_experts"
            )
        expected = (self.d_model, groups)
        if _sizes(groups_gate) != expected:
            raise ValueError(
                f"groups_gate must have (d_model, num_experts) = {expected}, got "
                f"{_sizes(groups_gate)}"
            )
        self.groups_gate = groups_gate
        self.experts_gate = experts_gate
        self.groups = groups

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logarithms of the experts' probabilities."""
        log_groups_NG = self.groups_gate(x_ND).log_softmax(dim=-1)
        within = self.experts_gate(x_ND).unflatten(1, (self.groups, -1)).log_softmax(dim=-1)
        return (log_groups_NG[:, :, None] + within).flatten(1)

    @property
    def dense(self) -> bool:
        """Whether all experts are to be chosen for now."""
        return is_dense(self.groups_gate) or is_dense(self.experts_gate)

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        products = gate_cost(self.groups_gate).flops + gate_cost(self.experts_gate).flops
        return products + 4 * self.groups + 5 * self.num_experts  # softmax twice, and their sum


class DenseToSparseGate(DenseToSparse):
    """`DenseToSparse` built from sizes, as a layer and the command build gates.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        gate: builds the gate that is divided.
        start: temperature at the first step.
        end: temperature after the last one.
        steps: optimiser steps that the fall takes.
        decay: ``geometric`` or ``linear``.
    """

    def __init__(
        self,
        d_model: int,
        num_experts: int,
        *,
        gate: Callable[[int, int], nn.Module] = LinearGate,
        start: float = 2.0,
        end: float = 0.1,
        steps: int = 1000,
        decay: Decay = "geometric",
    ) -> None:
        super().__init__(build_gate(gate, d_model, num_experts), start, end, steps, decay)


class HierarchicalGate(Hierarchical):
    """`Hierarchical` built from sizes, as a layer and the command build gates.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        groups: number G of groups.
        groups_gate: builds the gate over the groups.
        experts_gate: builds the gate over the experts.
    """

    def __init__(
        self,
        d_model: int,
        num_experts: int,
        *,
        groups: int = 2,
        groups_gate: Callable[[int, int], nn.Module] = LinearGate,
        experts_gate: Callable[[int, int], nn.Module] = LinearGate,
    ) -> None:
        if groups < 1:
            raise ValueError(f"groups must be at least 1, got {groups}")
        super().__init__(
            build_gate(groups_gate, d_model, groups),
            build_gate(experts_gate, d_model, num_experts),
            groups,
        )


def is_dense(gate: nn.Module) -> bool:
    """Whether a gate wants all experts to be chosen for now, whatever the layer's top-K."""
    return bool(getattr(gate, "dense", False))


def _sizes(gate: nn.Module) -> tuple[int, int]:
    if not isinstance(gate, Gate):
        raise TypeError(
            f"expected a gate of tsattn.nn.moe.gates, or a subclass of its Gate, got "
            f"{type(gate).__name__}"
        )
    return gate.d_model, gate.num_experts
