"""Gates that are quadratic in the token."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.moe.gates.base import Gate, check_rank
from tsattn.ops import low_rank_logits


class _QuadraticGate(Gate):
    """What both quadratic gates share: the full form ``x' A_i x``, or queries and keys of rank R.

    A_i is drawn with deviation 1 / D, queries and keys with D^(-1/2) R^(-1/4): the quadratic part
    of a standard-normal token then has variance 1, whatever D and R.
    """

    def __init__(self, d_model: int, num_experts: int, rank: int | None) -> None:
        super().__init__(d_model, num_experts)
        self.rank = rank
        if rank is None:
            self.quadratic = nn.Parameter(torch.randn(num_experts, d_model, d_model) / d_model)
            self.bias = nn.Parameter(torch.zeros(num_experts))
            return
        check_rank(rank, d_model)
        deviation = d_model**-0.5 * rank**-0.25
        self.query = nn.Parameter(torch.randn(rank, d_model) * deviation)
        self.key = nn.Parameter(torch.randn(num_experts, rank, d_model) * deviation)

    def products(self, x_ND: Tensor) -> Tensor:
        """Return ``x' A_i x``, [N, E]; the largest intermediate is [N, E, D]."""
        mapped = F.linear(x_ND, self.quadratic.flatten(0, 1))
        return _dot(x_ND, mapped, self.num_experts)

    def attend(self, x_ND: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return query times key of every expert, [N, E]; bias [R + E R] of the projections."""
        maps = torch.cat([self.query, self.key.flatten(0, 1)])
        return low_rank_logits(x_ND, maps, bias, len(self.query))

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart.

        The full form stores D x D numbers an expert, and ``x' A x`` sees the D (D + 1) / 2 of the
        symmetric part alone. For the low-rank form see `free_of_low_rank`.
        """
        d = self.d_model
        if self.rank is None:
            return self.stored_parameters - self.num_experts * d * (d - 1) // 2
        return free_of_low_rank(d, self.num_experts, self.rank)

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        products = self.d_model if self.rank is None else self.rank
        return 2 * (self.stored_parameters + self.num_experts * products)

    def extra_repr(self) -> str:
        """Name the sizes and the rank."""
        return f"{super().extra_repr()}, rank={self.rank}"


class QuadraticPolynomialGate(_QuadraticGate):
    """``x' A_i x + b_i . x + c_i``, or of low rank ``(Wq x + bq) . (Wk_i x + bk_i)``.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        rank: rank R of the quadratic part; ``None`` means the full form.

    Raises:
        ValueError: a rank outside 1..D.

    Source: active-attention paper, equations 2 (full) and 8 (low rank).
    """

    def __init__(self, d_model: int, num_experts: int, *, rank: int | None = None) -> None:
        super().__init__(d_model, num_experts, rank)
        if rank is None:
            self.linear = nn.Parameter(torch.randn(num_experts, d_model) * d_model**-0.5)
        else:
            self.query_bias = nn.Parameter(torch.zeros(rank))
            self.key_bias = nn.Parameter(torch.zeros(num_experts, rank))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        if self.rank is None:
            return self.products(x_ND) + F.linear(x_ND, self.linear, self.bias)  # eq. 2
        return self.attend(x_ND, torch.cat([self.query_bias, self.key_bias.flatten()]))  # eq. 8

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart; of low rank it is a monomial of ``(x, 1)``."""
        if self.rank is None:
            return super().free_parameters
        return free_of_low_rank(self.d_model + 1, self.num_experts, self.rank)


class QuadraticMonomialGate(_QuadraticGate):
    """``x' A_i x + c_i``, or of low rank ``(Wq x) . (Wk_i x)``.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        rank: rank R of the quadratic part; ``None`` means the full form.

    Raises:
        ValueError: a rank outside 1..D.

    Source: active-attention paper, equations 3 (full) and 9 (low rank).
    """

    def __init__(self, d_model: int, num_experts: int, *, rank: int | None = None) -> None:
        super().__init__(d_model, num_experts, rank)

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        if self.rank is None:
            return self.products(x_ND) + self.bias  # eq. 3
        return self.attend(x_ND)  # eq. 9


def free_of_low_rank(width: int, num_experts: int, rank: int) -> int:
    """Return in how many directions the forms ``(Wq x) . (Wk_i x)`` can move.

    They are the same for ``M Wq`` and ``M^-T Wk_i`` with any invertible M [R, R], and for
    ``Wk_i + S_i Wq`` with any antisymmetric S_i [R, R]. What is left of the (N + 1) R D numbers
    cannot be more than N D (D + 1) / 2, all there is in N quadratic forms. A single expert's form
    is any of rank 2 R.

    Args:
        width: D, numbers that the maps are applied to.
        num_experts: number N of experts.
        rank: rank R of query and keys, at most D.
    """
    if num_experts == 1:
        reached = min(2 * rank, width)
        return reached * width - reached * (reached - 1) // 2
    same = rank**2 + num_experts * rank * (rank - 1) // 2
    full = num_experts * width * (width + 1) // 2
    return min((num_experts + 1) * rank * width - same, full)


def _dot(x_NR: Tensor, y_NM: Tensor, num_experts: int) -> Tensor:
    """Return the dot products [N, E] of each x with the E parts of y."""
    y_NER = y_NM.view(y_NM.shape[0], num_experts, x_NR.shape[1])
    return torch.bmm(y_NER, x_NR[:, :, None]).squeeze(2)
