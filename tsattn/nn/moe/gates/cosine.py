"""Gates by the angle between token and expert."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.nn.moe.gates.base import Gate, check_rank


class CosineGate(Gate):
    """``cosine(P x, e_i) / tau``, with a learnable temperature tau.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        rank: width R of the projected token; ``None`` means half the experts as published, at least
            2 and at most D.

    Raises:
        ValueError: a rank outside 1..D.

    Source: XMoE, Chi et al. 2022, a baseline of the CompeteSMoE paper. Departures: tau begins at
    R^(-1/2), which gives logits of variance one, and counts as 0.01 where it is trained below that;
    a token that is projected to nothing is at right angles to every expert.
    """

    lowest_temperature = 0.01

    def __init__(self, d_model: int, num_experts: int, *, rank: int | None = None) -> None:
        super().__init__(d_model, num_experts)
        rank = min(d_model, max(2, num_experts // 2)) if rank is None else rank
        check_rank(rank, d_model)
        self.rank = rank
        self.projection = nn.Parameter(torch.randn(rank, d_model) * d_model**-0.5)
        self.embedding = nn.Parameter(torch.randn(num_experts, rank) * rank**-0.5)
        self.temperature = nn.Parameter(torch.tensor(rank**-0.5))

    def score(self, x_ND: Tensor) -> Tensor:
        """Return the logits of tokens in full precision."""
        projected, embedding = F.linear(x_ND, self.projection), self.embedding
        norms_NE = self.norm(projected) * self.norm(embedding).T
        cosines = F.linear(projected, embedding) / norms_NE
        return cosines / self.temperature.clamp(min=self.lowest_temperature)

    def norm(self, vectors: Tensor) -> Tensor:
        """Return what vectors are divided by, [.., 1]."""
        length = _length(vectors)
        return length.where(length > 1e-12, 1.0)  # a clamp has gradients of 1e12 there

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart.

        The lengths of the embeddings and of P do not count, nor does a rotation of both. In one
        dimension cosines are signs, and what is left is the temperature.
        """
        if self.rank == 1:
            return 1
        return self.stored_parameters - self._rotations - self.num_experts - 1

    @property
    def _rotations(self) -> int:
        return self.rank * (self.rank - 1) // 2

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions that the logits of one token take."""
        return 2 * self.rank * (self.d_model + self.num_experts + 1)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{super().extra_repr()}, rank={self.rank}"


class PerturbedCosineGate(CosineGate):
    """``(P x . e_i) / ((|P x| + d) (|e_i| + d)) / tau`` with a positive perturbation d.

    Args:
        d_model: width D of a token.
        num_experts: number E of experts.
        rank: width R of the projected token, as in `CosineGate`.
        perturbation: added to both norms, positive; it is not trained.

    Raises:
        ValueError: a rank outside 1..D, or a perturbation that is not positive.

    Source: Nguyen et al. 2025, "Statistical advantages of perturbing cosine router", a baseline of
    the CompeteSMoE paper.
    """

    perturbation: Tensor

    def __init__(
        self,
        d_model: int,
        num_experts: int,
        *,
        rank: int | None = None,
        perturbation: float = 0.1,
    ) -> None:
        super().__init__(d_model, num_experts, rank=rank)
        if not perturbation > 0:
            raise ValueError(f"perturbation must be positive, got {perturbation}")
        self.register_buffer("perturbation", torch.tensor(float(perturbation)))

    def norm(self, vectors: Tensor) -> Tensor:
        """Return what vectors are divided by, [.., 1]."""
        return _length(vectors) + self.perturbation

    @property
    def free_parameters(self) -> int:
        """Numbers that the logits can tell apart.

        A rotation of P and of the embeddings does not count; of the temperature and the embeddings'
        lengths one is too many.
        """
        return self.stored_parameters - self._rotations - 1


def _length(vectors: Tensor) -> Tensor:
    # unlike that of a root, its gradient at zero is zero
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # pyright: ignore
