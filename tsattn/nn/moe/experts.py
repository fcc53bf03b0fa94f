"""Experts with stacked parameters: all experts of a layer are one module."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.as_built import is_as_built
from tsattn.nn.dropout import Dropout, drop_after_gelu
from tsattn.nn.moe.grouped import grouped_linear, membership, obstacle_to_groups
from tsattn.ops import ValueActivation, build, expert_feedforward, feedforward
from tsattn.ops.activations import activate, as_function
from tsattn.ops.experts.api import obstacle
from tsattn.tensors import FlatTokens, Logits

ExpertsFactory = Callable[[int, int], nn.Module]
"""Builds experts from ``d_model`` and ``num_experts``; a class of experts is one."""

Measure = Callable[[Tensor], Tensor]
"""Maps outputs [..., D] to one number each, [...]."""

_CHUNK_NUMBERS = 1 << 18
"""Numbers of outputs that are measured together: they fit a cache."""


class Experts(nn.Module):
    """Base of the experts of a layer: E maps from tokens to tokens, applied in three ways.

    * `in_pieces`: each expert to the tokens that chose it, one after the other;
    * `in_groups`: the same in grouped products, where `groupable` says so;
    * `mixture`: all experts to all tokens, weighted with zeros for those not chosen.

    `every` gives all outputs themselves, and `measured` a number for each of them, for routers that
    look at the experts' answers.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Raises:
        ValueError: a size below one.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__()
        if d_model < 1 or num_experts < 1:
            raise ValueError(
                f"experts need d_model and num_experts of at least 1, got d_model={d_model}, "
                f"num_experts={num_experts}"
            )
        self.d_model = d_model
        self.num_experts = num_experts

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return the outputs [N, E, D] of all experts."""
        raise NotImplementedError

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Apply expert e to piece e, [S_e, D], of which some or all may be empty.

        Parameters have a gradient also where all are, as distributed training needs it. The dtype
        of an output does not depend on which pieces are empty.
        """
        raise NotImplementedError

    def in_groups(self, x_SD: Tensor, ends_E: Tensor) -> Tensor:
        """Apply expert e to rows ``ends[e - 1] .. ends[e] - 1``; only where `groupable`."""
        raise NotImplementedError

    def groupable(self, x: Tensor) -> str:
        """Say why grouped products cannot take these tokens, or nothing."""
        return f"{type(self).__name__} have no products to group"

    def in_one_operation(
        self, x_ND: Tensor, weights_NK: Tensor, order_S: Tensor, counts_E: Tensor
    ) -> Tensor:
        """Return the weighted sum of the chosen experts; only where `is_one_operation`.

        Args:
            x_ND: tokens.
            weights_NK: of the chosen experts.
            order_S: slot ``n K + k`` at each place of the slots sorted by expert.
            counts_E: slots of each expert.
        """
        raise NotImplementedError

    def is_one_operation(self, x_ND: Tensor, weights_NK: Tensor) -> bool:
        """Whether a compiled kernel takes these tokens to their experts and back."""
        return False

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return ``sum_e weights[n, e] expert_e(x[n])``, every expert computed for every token."""
        outputs = self.every(x_ND)
        return (weights_NE.to(outputs.dtype)[:, None, :] @ outputs).squeeze(1)

    @torch.no_grad()
    def measured(self, x_ND: FlatTokens, measure: Measure) -> Tensor:
        """Return ``measure(expert_e(x[n]))`` [N, E]: no dropout, no gradients, no outputs kept.

        Experts with dropout of their own override this.
        """
        return torch.cat([measure(self.every(x)) for x in in_chunks(x_ND, self.num_experts)])

    @property
    def flops_per_slot(self) -> int:
        """Multiplications and additions of one expert for one token."""
        return 2 * sum(parameter.numel() for parameter in self.parameters()) // self.num_experts

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"d_model={self.d_model}, num_experts={self.num_experts}"


class FeedForwardExperts(Experts):
    """``W2_e dropout(activation(W1_e x + b1_e)) + b2_e``.

    Parameters are stacks of those of `torch.nn.Linear`, drawn like them: ``expand_weight``
    [E, F, D], ``expand_bias`` [E, F], ``contract_weight`` [E, D, F], ``contract_bias`` [E, D].

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        d_ff: width F of an expert's hidden layer.
        activation: one of `tsattn.ops.VALUE_ACTIVATIONS` or any elementwise callable.
        dropout: probability of dropping a hidden unit.

    Raises:
        ValueError: a size below one, an unknown activation.
    """

    def __init__(
        self,
        d_model: int,
        num_experts: int,
        d_ff: int,
        *,
        activation: ValueActivation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, num_experts)
        if d_ff < 1:
            raise ValueError(f"d_ff of an expert must be at least 1, got {d_ff}")
        as_function(activation)
        self.d_ff = d_ff
        self.activation = activation
        self.expand_weight = _uniform(num_experts, d_ff, d_model, fan_in=d_model)
        self.expand_bias = _uniform(num_experts, d_ff, fan_in=d_model)
        self.contract_weight = _uniform(num_experts, d_model, d_ff, fan_in=d_ff)
        self.contract_bias = _uniform(num_experts, d_model, fan_in=d_ff)
        self.dropout = Dropout(dropout)

    def hidden(self, before: Tensor) -> Tensor:
        """Return the hidden units from what goes into the activation."""
        if self.activation == "gelu":
            return drop_after_gelu(self.dropout, before)
        return self.dropout(activate(self.activation, before))

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return the outputs [N, E, D] of all experts."""
        hidden_NEF = self._apart(self._wide(x_ND))
        outputs_END = hidden_NEF.transpose(0, 1) @ self.contract_weight.mT
        return outputs_END.transpose(0, 1) + self.contract_bias

    def mixture(self, x_ND: FlatTokens, weights_NE: Logits) -> Tensor:
        """Return the weighted sum: one wide feed-forward whose hidden units are weighted."""
        hidden = self._wide(x_ND)
        weights = weights_NE.to(hidden.dtype)
        weighted = self._apart(hidden) * weights[:, :, None]
        contract = self.contract_weight.transpose(0, 1).flatten(1)  # [D, E F]
        return F.linear(weighted.flatten(1), contract) + F.linear(weights, self.contract_bias.T)

    def _apart(self, hidden: Tensor) -> Tensor:
        """Return the hidden units [N, E, F] of each expert."""
        return hidden.view(hidden.shape[0], self.num_experts, self.d_ff)

    def _wide(self, x_ND: Tensor) -> Tensor:
        expand = F.linear(x_ND, self.expand_weight.flatten(0, 1), self.expand_bias.flatten())
        return self.hidden(expand)

    @torch.no_grad()
    def measured(self, x_ND: FlatTokens, measure: Measure) -> Tensor:
        """Return ``measure(expert_e(x[n]))`` [N, E]."""
        stacks = (self.expand_weight, self.expand_bias, self.contract_weight, self.contract_bias)
        parts = list(zip(*(stack.unbind(0) for stack in stacks), strict=True))
        rows = [
            torch.stack([measure(self._one_undropped(x, *part)) for part in parts], dim=1)
            for x in in_chunks(x_ND)
        ]
        return torch.cat(rows)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Apply expert e to piece e."""
        # taken apart once: the gradients are then put together once, not once an expert
        idle = not any(map(len, pieces))
        parts = zip(pieces, *(stack.unbind(0) for stack in self._stacks), strict=True)
        if idle:  # no hidden units, but gradients of zero
            return [F.linear(F.linear(x, w1, b1), w2, b2) for x, w1, b1, w2, b2 in parts]
        outputs = [self._one(x, *weights) if len(x) else x for x, *weights in parts]
        return _of_one_dtype(outputs)

    def _one(self, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        if self.activation == "gelu" and is_as_built(self.dropout, Dropout):
            return feedforward(x, w1, b1, w2, b2, p=self.dropout.rate)
        return F.linear(self.hidden(F.linear(x, w1, b1)), w2, b2)

    def _one_undropped(self, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        if self.activation == "gelu":
            return feedforward(x, w1, b1, w2, b2)
        return F.linear(activate(self.activation, F.linear(x, w1, b1)), w2, b2)

    def in_one_operation(
        self, x_ND: Tensor, weights_NK: Tensor, order_S: Tensor, counts_E: Tensor
    ) -> Tensor:
        """Return the weighted sum of the chosen experts."""
        assert isinstance(self.activation, str)
        slots, rate = (order_S, counts_E), self.dropout.rate
        return expert_feedforward(
            x_ND, weights_NK, *slots, self._stacks, activation=self.activation, p=rate, impl="cpu"
        )

    def is_one_operation(self, x_ND: Tensor, weights_NK: Tensor) -> bool:
        """Whether a compiled kernel takes these tokens to their experts and back."""
        if not isinstance(self.activation, str) or not build.is_ready():
            return False
        if not is_as_built(self.dropout, Dropout):
            return False
        return not obstacle(x_ND, weights_NK, self._stacks)

    @property
    def _stacks(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        expand, contract = self.expand_weight, self.contract_weight
        return expand, self.expand_bias, contract, self.contract_bias

    def in_groups(self, x_SD: Tensor, ends_E: Tensor) -> Tensor:
        """Apply expert e to its rows by grouped products."""
        membership_SE = membership(ends_E, len(x_SD))
        hidden = grouped_linear(x_SD, self.expand_weight, self.expand_bias, ends_E, membership_SE)
        return grouped_linear(
            self.hidden(hidden), self.contract_weight, self.contract_bias, ends_E, membership_SE
        )

    def groupable(self, x: Tensor) -> str:
        """Say why grouped products cannot take these tokens, or nothing."""
        return obstacle_to_groups(x, self.d_model, self.d_ff)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{super().extra_repr()}, d_ff={self.d_ff}, activation={self.activation!r}"


class LinearExperts(Experts):
    """``W_e x + b_e``: only weakly identifiable, as the theory warns; for comparison.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Source: active-attention paper, appendix C.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.weight = _uniform(num_experts, d_model, d_model, fan_in=d_model)
        self.bias = _uniform(num_experts, d_model, fan_in=d_model)

    def every(self, x_ND: FlatTokens) -> Tensor:
        """Return the outputs [N, E, D] of all experts."""
        outputs = F.linear(x_ND, self.weight.flatten(0, 1), self.bias.flatten())
        return outputs.view(outputs.shape[0], self.num_experts, self.d_model)

    def in_pieces(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Apply expert e to piece e."""
        idle = not any(map(len, pieces))
        parts = zip(pieces, self.weight.unbind(0), self.bias.unbind(0), strict=True)
        if idle:  # gradients of zero
            return [F.linear(x, weight, bias) for x, weight, bias in parts]
        outputs = [F.linear(x, weight, bias) if len(x) else x for x, weight, bias in parts]
        return _of_one_dtype(outputs)

    def in_groups(self, x_SD: Tensor, ends_E: Tensor) -> Tensor:
        """Apply expert e to its rows by a grouped product."""
        return grouped_linear(x_SD, self.weight, self.bias, ends_E, membership(ends_E, len(x_SD)))

    def groupable(self, x: Tensor) -> str:
        """Say why grouped products cannot take these tokens, or nothing."""
        return obstacle_to_groups(x, self.d_model)


def in_chunks(x_ND: Tensor, copies: int = 1) -> tuple[Tensor, ...]:
    """Return the tokens a few at a time, so that ``copies`` of each chunk fit a cache."""
    if torch.compiler.is_compiling():
        return (x_ND,)
    return torch.split(x_ND, max(1, _CHUNK_NUMBERS // (copies * max(1, x_ND.shape[1]))))


def _of_one_dtype(outputs: list[Tensor]) -> list[Tensor]:
    """Give empty pieces, which nobody computed, the dtype of the outputs, of which there are some.

    Under autocast it is another than that of the tokens.
    """
    dtype = next(y.dtype for y in outputs if len(y))
    return [y if len(y) else y.to(dtype) for y in outputs]


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Draw as `torch.nn.Linear` does: uniform up to ``1 / sqrt(fan_in)``."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
