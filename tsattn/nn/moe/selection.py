"""From logits to chosen experts and their weights."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tsattn.ops import largest, softmax_rows
from tsattn.tensors import Chosen, ExpertBias, Logits, Weights

Normalisation = Literal["dense", "topk_softmax", "softmax_topk", "sigmoid", "normalised_sigmoid"]

NORMALISATIONS: tuple[Normalisation, ...] = (
    "dense",
    "topk_softmax",
    "softmax_topk",
    "sigmoid",
    "normalised_sigmoid",
)
"""How logits become weights, see `select`."""


class Selection(NamedTuple):
    """Who works for each token, and with which weight.

    Attributes:
        experts_NK: the chosen experts of each token, best first; by their numbers where every
            expert is chosen.
        weights_NK: what their outputs are multiplied by.
        probabilities_NE: the gate's distribution over all experts; each row sums to one.
    """

    experts_NK: Chosen
    weights_NK: Weights
    probabilities_NE: Logits


def as_normalisation(name: str) -> Normalisation:
    """Return a normalisation by its name.

    Raises:
        ValueError: another name.
    """
    for known in NORMALISATIONS:
        if known == name:
            return known
    raise ValueError(f"unknown normalisation {name!r}; expected one of {', '.join(NORMALISATIONS)}")


def select(
    logits_NE: Logits,
    top_k: int,
    normalisation: Normalisation = "topk_softmax",
    bias_E: ExpertBias | None = None,
) -> Selection:
    """Choose ``top_k`` experts for every token and weigh them.

    With ``p`` the softmax over all experts and ``s = sigmoid(logits)``, the chosen experts C of a
    token have the weights

    * ``dense``: ``p_i``, and every expert is chosen;
    * ``topk_softmax``: ``exp(logit_i) / sum over C of exp(logit_j)``; with one expert the weight is
      1 whatever the logits, and no gradient reaches the gate through it;
    * ``softmax_topk``: ``p_i``, which sums to less than one over C;
    * ``sigmoid``: ``s_i``;
    * ``normalised_sigmoid``: ``s_i / sum over C of s_j``.

    The largest scores win, ``p`` or ``s``, plus ``bias_E`` where it is given; the bias takes part
    in the choice alone, and gives no tokens to experts that are barred. Of equal sums the larger
    logit wins, so that a bias decides nothing among scores that have saturated, and of equal logits
    the expert with the lower number, on every device.

    Args:
        logits_NE: of a gate, one row a token.
        top_k: how many experts a token is given, 1 to all of them.
        normalisation: one of `NORMALISATIONS`.
        bias_E: added to the scores for the choice, for balancing without a loss.

    Raises:
        ValueError: a ``top_k`` that there are not enough experts for, an unknown normalisation, or
            logits that are NaN, plus infinity, or minus infinity for every expert (compiled graphs
            do not look: the token's weights are NaN then). Minus infinity for some bars them.

    Source: CompeteSMoE paper, section 2.1 (top-K then softmax); Fedus et al. 2022 (softmax then
    top-K); DeepSeek-V3 (normalised sigmoid with a bias of the choice).

    Example:
        >>> select(torch.tensor([[0.0, 2.0, 1.0]]), 2).experts_NK.tolist()
        [[1, 2]]
    """
    normalisation = as_normalisation(normalisation)
    check_top_k(top_k, logits_NE.shape[-1])
    bars = torch.compiler.is_compiling() or _bars_some(logits_NE)
    sigmoid = normalisation in ("sigmoid", "normalised_sigmoid")
    # s_i / sum s_j is the softmax of log s, also where all s are too small for a float
    energies = F.logsigmoid(logits_NE) if sigmoid else logits_NE
    probabilities = softmax_rows(energies)
    scores = logits_NE.sigmoid() if sigmoid else probabilities
    if normalisation == "dense" or top_k == logits_NE.shape[-1]:
        chosen = _everyone(logits_NE)
    else:
        chosen = _winners(logits_NE.detach(), scores.detach(), top_k, bias_E, bars=bars)
    if normalisation in ("topk_softmax", "normalised_sigmoid"):
        weights = softmax_rows(energies.gather(1, chosen))
    else:
        weights = scores.gather(1, chosen)
    return Selection(chosen, weights, probabilities)


def best(scores_NE: Tensor, top_k: int) -> Tensor:
    """Return the indices [N, K] of the largest scores of each row, largest first.

    Of equal scores the lower index comes first. A NaN counts as the lowest score of all.
    """
    return largest(scores_NE, top_k)


def check_top_k(top_k: int, num_experts: int) -> None:
    """Refuse a number of chosen experts that cannot be.

    Raises:
        ValueError: fewer than one or more than there are.
    """
    if not 1 <= top_k <= num_experts:
        raise ValueError(
            f"top_k must be between 1 and num_experts, got top_k={top_k} of {num_experts} experts"
        )


def _winners(
    logits_NE: Tensor, scores_NE: Tensor, top_k: int, bias_E: Tensor | None, *, bars: bool
) -> Tensor:
    if bias_E is None:
        return best(logits_NE, top_k)  # the logits order as the scores do, and do not saturate
    by_logit_NE = best(logits_NE, logits_NE.shape[1])
    biased_NE = scores_NE + bias_E
    if bars:
        biased_NE = biased_NE.masked_fill(logits_NE == -torch.inf, -torch.inf)
    return by_logit_NE.gather(1, best(biased_NE.gather(1, by_logit_NE), top_k))


def _everyone(logits_NE: Tensor) -> Tensor:
    experts_E = torch.arange(logits_NE.shape[-1], device=logits_NE.device)
    return experts_E.expand(logits_NE.shape)


def _bars_some(logits_NE: Tensor) -> bool:
    """Say whether a logit may be minus infinity.

    Raises:
        ValueError: logits that are NaN, plus infinity, or minus infinity for every expert.
    """
    if logits_NE.detach().sum().isfinite():  # cheaper than looking at each
        return False
    kind, bad_NE = "NaN", logits_NE.isnan()
    if not bad_NE.any():
        barred_NE = logits_NE == -torch.inf
        kind, bad_NE = "infinite", (logits_NE == torch.inf) | barred_NE.all(dim=1, keepdim=True)
    if not bad_NE.any():
        return True
    experts = [e for e in range(bad_NE.shape[1]) if bool(bad_NE[:, e].any())]
    tokens = int(bad_NE.any(dim=1).sum())
    raise ValueError(
        f"the gate's logits are {kind} for {tokens} of {len(logits_NE)} tokens, experts "
        f"{', '.join(map(str, experts))}; the tokens or the gate's parameters have become {kind}: "
        "try a lower learning rate or gradient clipping"
    )
