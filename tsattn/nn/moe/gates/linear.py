"""The classic gate, and the same one scored by sigmoids."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.moe.gates.base import Gate
from tsattn.nn.moe.selection import Normalisation


class LinearGate(Gate):
    """``w_i . x + c_i``.

    The attention form of a gate with the identity as query and constant keys ``w_i``.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Source: Shazeer et al. 2017; as attention: active-attention paper, section 2.3.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.weight = nn.Parameter(torch.randn(num_experts, d_model) * d_model**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_experts))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        return F.linear(x_ND, self.weight, self.bias)

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart: all."""
        return self.stored_parameters


class SigmoidGate(LinearGate):
    """``w_i . x + c_i``, whose sigmoids are the weights: experts do not compete for one unit.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Source: sigma-MoE, Csordas et al. 2023, a baseline of the CompeteSMoE paper.
    """

    normalisation: Normalisation = "sigmoid"
