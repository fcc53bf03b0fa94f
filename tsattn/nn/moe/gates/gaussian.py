"""The gate of Gaussian densities."""

# Triangular solutions carry no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import math

import torch
from torch import Tensor, nn

from tsattn.nn.moe.gates.base import Gate


class GaussianGate(Gate):
    """``log pi_i + log N(x; mu_i, Sigma_i)``: the posterior of a Gaussian mixture over experts.

    ``Sigma_i = L_i L_i'``, with L_i lower triangular: its diagonal is the exponential of that of
    ``log_cholesky``, so that Sigma_i is positive definite whatever the parameters. ``pi`` is the
    softmax of ``log_prior``. Entries of ``log_cholesky`` above the diagonal are not used.

    Sigma_i begins as the identity and the means on the scale at which logits differ by about one;
    the logits themselves, being log densities, grow with D.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.

    Source: active-attention paper, equation 21; Liao, Li and Carin 2007.
    """

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.log_prior = nn.Parameter(torch.zeros(num_experts))
        self.mean = nn.Parameter(torch.randn(num_experts, d_model) * d_model**-0.5)
        self.log_cholesky = nn.Parameter(torch.zeros(num_experts, d_model, d_model))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        whitened = torch.linalg.solve_triangular(
            self.cholesky(), x_ND.T - self.mean[:, :, None], upper=False
        )  # [E, D, N]
        distance_NE = whitened.square().sum(dim=1).T
        half_log_det = self.log_cholesky.diagonal(dim1=1, dim2=2).sum(dim=-1)
        log_pi = self.log_prior.log_softmax(dim=0)
        constant = 0.5 * self.d_model * math.log(2 * math.pi)
        return log_pi - constant - half_log_det - 0.5 * distance_NE  # eq. 21

    def cholesky(self) -> Tensor:
        """Return the factors L [E, D, D] of the covariances."""
        diagonal = self.log_cholesky.diagonal(dim1=1, dim2=2).exp()
        return self.log_cholesky.tril(-1) + torch.diag_embed(diagonal)

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart: not the unused ones, and of pi one less."""
        unused = self.num_experts * self.d_model * (self.d_model - 1) // 2
        return self.stored_parameters - unused - 1

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        return self.num_experts * self.d_model * (self.d_model + 4)
