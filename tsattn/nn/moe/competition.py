"""Competition: all experts answer, and those with the strongest answers work for the token."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.nn.moe.dispatch import Computing, apart, spread
from tsattn.nn.moe.experts import Experts
from tsattn.nn.moe.selection import best, check_top_k
from tsattn.tensors import Chosen, ChosenOutputs, FlatTokens, Logits, Weights

Affinity = Literal["softplus", "silu", "relu", "sigmoid", "norm"]

AFFINITIES: tuple[Affinity, ...] = get_args(Affinity)
"""How strong an expert's answer is, see `affinities`."""

Diversity = Literal["matrix", "cosine"]

DIVERSITIES: tuple[Diversity, ...] = get_args(Diversity)
"""What winners' outputs are divided by to compare them, see `diversity_loss`."""


class Competition(NamedTuple):
    """Who won each token, and with what.

    Attributes:
        winners_NK: the winning experts, strongest first.
        weights_NK: their affinities, scaled to the sum one.
        outputs_NKD: what they made of the token.
    """

    winners_NK: Chosen
    weights_NK: Weights
    outputs_NKD: ChosenOutputs

    @property
    def mixture(self) -> Tensor:
        """The weighted sum of the winners' outputs, [N, D], in their dtype."""
        outputs = self.outputs_NKD
        return (self.weights_NK.to(outputs.dtype)[:, None, :] @ outputs).squeeze(1)


def _uncached_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return autocast as it is, but for narrowed weights: those made without a graph stay apart."""
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False)


def as_affinity(name: str) -> Affinity:
    """Return an affinity by its name.

    Raises:
        ValueError: another name.
    """
    for known in AFFINITIES:
        if known == name:
            return known
    raise ValueError(f"unknown affinity {name!r}; expected one of {', '.join(AFFINITIES)}")


def as_diversity(name: str) -> Diversity:
    """Return a diversity by its name.

    Raises:
        ValueError: another name.
    """
    for known in DIVERSITIES:
        if known == name:
            return known
    raise ValueError(f"unknown diversity {name!r}; expected one of {', '.join(DIVERSITIES)}")


def affinities(outputs: Tensor, affinity: Affinity = "softplus") -> Tensor:
    """Return how strong outputs [..., D] are: ``mean over D of kappa(output)``, or their norm.

    In float32 at least.

    Args:
        outputs: of experts.
        affinity: kappa, one of ``softplus``, ``silu``, ``relu`` and ``sigmoid``, or ``norm`` for
            the Euclidean norm of the output.

    Raises:
        ValueError: an unknown affinity.

    Source: CompeteSMoE paper, section 2.2; appendix C, equations 10 and 11.
    """
    affinity = as_affinity(affinity)
    wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    if affinity == "norm":
        return torch.linalg.vector_norm(wide, dim=-1)  # pyright: ignore  # eq. 11
    kappa = {"softplus": F.softplus, "silu": F.silu, "relu": F.relu, "sigmoid": torch.sigmoid}
    return kappa[affinity](wide).mean(dim=-1)  # eq. 10


def compete(
    experts: Experts,
    x_ND: FlatTokens,
    top_k: int,
    affinity: Affinity = "softplus",
    computing: str | Computing = Computing.AUTO,
) -> Competition:
    """Let the ``top_k`` experts with the strongest answers win each token.

    All experts answer, without dropout and without gradients; of equal affinities the expert with
    the lower number wins. The winners' answers are then computed as in any other step of training.
    With s the `affinities` of these answers, the weights are ``s_i / sum over the winners of s_j``.
    So gradients reach the winners of a token alone.

    Departure: where affinities can be zero or negative (``silu``, ``relu``), negative ones weigh
    nothing, and winners without any positive affinity weigh the same.

    Args:
        experts: the experts.
        x_ND: tokens.
        top_k: how many experts win, 1 to all of them.
        affinity: see `affinities`.
        computing: who computes the winners' answers, see `tsattn.nn.moe.Computing`.

    Raises:
        ValueError: a ``top_k`` that there are not enough experts for, an unknown affinity, or a
            computation that cannot take these experts and tokens.

    Source: CompeteSMoE paper, section 2.2; appendix C.1 (who has gradients).

    Example:
        >>> from tsattn.nn.moe import FeedForwardExperts
        >>> compete(FeedForwardExperts(16, 4, 32), torch.randn(9, 16), 2).outputs_NKD.shape
        torch.Size([9, 2, 16])
    """
    check_top_k(top_k, experts.num_experts)
    with _uncached_autocast(x_ND.device.type):
        strengths = experts.measured(x_ND, lambda outputs: affinities(outputs, affinity))
    winners = best(strengths, top_k)
    outputs = apart(experts, x_ND, winners, computing)
    return Competition(winners, _shares(affinities(outputs, affinity)), outputs)


def _shares(affinities_NK: Tensor) -> Tensor:
    """Return affinities scaled to the sum one."""
    positive = affinities_NK.clamp_min(0)
    total = positive.sum(dim=-1, keepdim=True)
    some = total > 0
    return (positive / total.where(some, 1.0)).where(some, 1 / affinities_NK.shape[1])


def distillation_loss(
    router_NE: Logits, winners_NK: Chosen, weights_NK: Weights, alpha: float = 0.1
) -> Tensor:
    """Return how far the router is from the competition.

    The mean over tokens of
    ``mean over E of (s_R - s_C)^2 + alpha / K * sum over the winners of (s_C - s_R)^2``,

    with s_C the winners' weights, 0 for all other experts. No gradient reaches s_C.

    Args:
        router_NE: s_R, the softmax over all experts of the router's logits.
        winners_NK: who won.
        weights_NK: the winners' weights.
        alpha: what the winners weigh in addition.

    Source: CompeteSMoE paper, equation 1.
    """
    weights = weights_NK.detach().to(router_NE.dtype)
    everyone = (router_NE - spread(winners_NK, weights, router_NE.shape[1])).square().mean()
    winners = (weights - router_NE.gather(1, winners_NK)).square().mean()  # over K and tokens
    return everyone + alpha * winners  # eq. 1


def diversity_loss(outputs_NKD: ChosenOutputs, diversity: Diversity = "matrix") -> Tensor:
    """Return how alike the winners' outputs are.

    The mean over tokens of ``1 / (K (K - 1)) * sum over i != j of o_i . o_j / |O|^2``,

    |O| being one norm for all winners of a token (Frobenius). The sum is computed as
    ``|sum o_i|^2 - |O|^2``. A single winner, and winners whose outputs are all zero, add 0.

    Args:
        outputs_NKD: O, the winners' outputs of each token.
        diversity: ``matrix`` as above; ``cosine``, a departure, compares outputs that are each
            scaled to length one, so that a strong winner does not hide the others.

    Raises:
        ValueError: an unknown diversity.

    Source: CompeteSMoE paper, equation 2.
    """
    diversity = as_diversity(diversity)
    outputs = outputs_NKD.to(torch.promote_types(outputs_NKD.dtype, torch.float32))
    top_k = outputs.shape[1]
    if top_k == 1:
        return 0.0 * outputs.sum()
    if diversity == "cosine":
        outputs = F.normalize(outputs, dim=-1)
    squares = outputs.square().sum(dim=(1, 2))
    alike = outputs.sum(dim=1).square().sum(dim=-1) - squares
    if diversity == "matrix":
        alike = alike / squares.clamp_min(torch.finfo(outputs.dtype).tiny)
    return alike.mean() / (top_k * (top_k - 1))  # eq. 2
