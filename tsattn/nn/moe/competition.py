"""Competition: all experts answer, and those with the strongest answers work for the token."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.nn.moe.dispatch import spread
from tsattn.nn.moe.selection import best, check_top_k
from tsattn.tensors import Chosen, ExpertOutputs, Logits, Weights, WinnerOutputs

Affinity = Literal["softplus", "silu", "relu", "sigmoid", "norm"]

AFFINITIES: tuple[Affinity, ...] = get_args(Affinity)
"""How strong an expert's answer is, see `affinities`."""

Diversity = Literal["matrix", "cosine"]

DIVERSITIES: tuple[Diversity, ...] = get_args(Diversity)
"""What winners' outputs are divided by to compare them, see `diversity_loss`."""

_CHUNK_NUMBERS = 1 << 18
"""Numbers of the experts' outputs whose affinities are computed together: they fit a cache."""


class Competition(NamedTuple):
    """Who won each token, and with what.

    Attributes:
        winners_NK: the winning experts, strongest first.
        weights_NK: their affinities, scaled to the sum one.
        outputs_NKD: what they made of the token.
    """

    winners_NK: Chosen
    weights_NK: Weights
    outputs_NKD: WinnerOutputs

    @property
    def mixture(self) -> Tensor:
        """The weighted sum of the winners' outputs, [N, D], in their dtype."""
        outputs = self.outputs_NKD
        return (self.weights_NK.to(outputs.dtype)[:, None, :] @ outputs).squeeze(1)


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
        return torch.linalg.vector_norm(wide, dim=-1)  # eq. 11
    kappa = {"softplus": F.softplus, "silu": F.silu, "relu": F.relu, "sigmoid": torch.sigmoid}
    return kappa[affinity](wide).mean(dim=-1)  # eq. 10


def compete(
    outputs_NED: ExpertOutputs, top_k: int, affinity: Affinity = "softplus"
) -> Competition:
    """Let the ``top_k`` experts with the strongest outputs win each token.

    The winners' weights are ``s_i / sum over the winners of s_j``, with s the `affinities`; of
    equal affinities the expert with the lower number wins. Gradients reach the outputs of the
    winners alone.

    Departure: where affinities can be zero or negative (``silu``, ``relu``), negative ones weigh
    nothing, and winners without any positive affinity weigh the same.

    Args:
        outputs_NED: of all experts for every token.
        top_k: how many experts win, 1 to all of them.
        affinity: see `affinities`.

    Raises:
        ValueError: a ``top_k`` that there are not enough experts for, an unknown affinity.

    Source: CompeteSMoE paper, section 2.2.

    Example:
        >>> compete(torch.tensor([[[0.0], [5.0], [1.0]]]), 2).winners_NK.tolist()
        [[1, 2]]
    """
    check_top_k(top_k, outputs_NED.shape[1])
    winners = best(_all_affinities(outputs_NED.detach(), affinity), top_k)
    won = _outputs_of(outputs_NED, winners)
    strengths = affinities(won, affinity).clamp_min(0)
    total = strengths.sum(dim=-1, keepdim=True)
    positive = total > 0
    shares = strengths / total.where(positive, 1.0)
    return Competition(winners, shares.where(positive, 1 / top_k), won)


def distillation_loss(
    router_NE: Logits, winners_NK: Chosen, weights_NK: Weights, alpha: float = 0.1
) -> Tensor:
    """Return how far the router is from the competition.

    The mean over tokens of
    ``mean over E of (s_R - s_C)^2 + alpha / K * sum over the winners of (s_C - s_R)^2``,

    with s_C the winners' weights, 0 for all other experts. No gradient reaches s_C.

    Args:
        router_NE: s_R, the router's distribution over all experts.
        winners_NK: who won.
        weights_NK: the winners' weights.
        alpha: what the winners weigh in addition.

    Source: CompeteSMoE paper, equation 1.
    """
    weights = weights_NK.detach().to(router_NE.dtype)
    everyone = (router_NE - spread(winners_NK, weights, router_NE.shape[1])).square().mean()
    winners = (weights - router_NE.gather(1, winners_NK)).square().mean()  # over K and tokens
    return everyone + alpha * winners  # eq. 1


def diversity_loss(outputs_NKD: WinnerOutputs, diversity: Diversity = "matrix") -> Tensor:
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
    between = outputs.sum(dim=1).square().sum(dim=-1) - squares
    tiny = torch.finfo(outputs.dtype).tiny
    return (between / squares.clamp_min(tiny)).mean() / (top_k * (top_k - 1))  # eq. 2


def _all_affinities(outputs_NED: Tensor, affinity: Affinity) -> Tensor:
    """Return the affinities [N, E] of all experts, a few tokens at a time."""
    tokens = max(1, _CHUNK_NUMBERS // max(1, math.prod(outputs_NED.shape[1:])))
    return torch.cat([affinities(part, affinity) for part in outputs_NED.split(tokens)])


def _outputs_of(outputs_NED: Tensor, winners_NK: Tensor) -> Tensor:
    index = winners_NK[:, :, None].expand(-1, -1, outputs_NED.shape[2])
    return outputs_NED.gather(1, index)
