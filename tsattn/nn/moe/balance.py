"""Keeping the experts equally busy: two losses, and a bias of the choice without a loss."""

import torch
from torch import Tensor, distributed

from tsattn.nn.stepping import Stepping
from tsattn.tensors import ExpertBias, ExpertCounts, Logits


def balance_loss(probabilities_NE: Logits, counts_E: ExpertCounts) -> Tensor:
    """Return ``E sum_i f_i P_i``: 1 where load and probability are uniform, up to E.

    f_i is the share of slots that expert i got (no gradient), P_i its mean probability.

    Args:
        probabilities_NE: the gate's distribution over all experts.
        counts_E: slots of each expert; over all ranks where there are several.

    Source: Fedus et al. 2022, "Switch transformers", equations 4 to 6.
    """
    share_E = counts_E / counts_E.sum().clamp_min(1)
    mean_E = probabilities_NE.mean(dim=0)
    return len(counts_E) * (share_E.to(mean_E.dtype) * mean_E).sum()


def router_z_loss(logits_NE: Logits) -> Tensor:
    """Return ``mean_n logsumexp_i(logits)^2``, which keeps logits small.

    Source: Zoph et al. 2022, "ST-MoE", equation 5.
    """
    return logits_NE.logsumexp(dim=-1).square().mean()


def over_ranks(counts_E: ExpertCounts) -> ExpertCounts:
    """Return the sum of counts over all processes of a training; of one alone the counts."""
    if distributed.is_available() and distributed.is_initialized():
        counts_E = counts_E.clone()
        distributed.all_reduce(counts_E)  # pyright: ignore[reportUnknownMemberType]
    return counts_E


class SelectionBias(Stepping):
    """A bias of the choice that lifts experts with too little load and lowers those with too much.

    After every optimiser step ``bias_i += step sign(mean load - load_i)``, with the load of that
    step counted over all ranks. It takes part in the choice of experts, not in their weights.
    Nothing is counted in evaluation.

    Args:
        num_experts: number E of experts.
        step: by how much the bias moves, positive.

    Raises:
        ValueError: a step that is not positive.

    Source: Wang et al. 2024, "Auxiliary-loss-free load balancing", algorithm 1.
    """

    bias_E: ExpertBias
    counts_E: ExpertCounts

    def __init__(self, num_experts: int, step: float) -> None:
        super().__init__()
        if not step > 0:
            raise ValueError(f"the step of a selection bias must be positive, got {step}")
        self.step = step
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer(
            "counts_E", torch.zeros(num_experts, dtype=torch.int64), persistent=False
        )

    def observe(self, counts_E: ExpertCounts) -> None:
        """Add the load of a batch, in training."""
        if self.training:
            self.counts_E += counts_E

    def after_step(self) -> None:
        """Move the bias by the load since the last step."""
        load_E = over_ranks(self.counts_E)
        if int(load_E.sum()):
            load = load_E.to(self.bias_E.dtype)
            self.bias_E += self.step * torch.sign(load.mean() - load)
        self.counts_E.zero_()
