"""The mixture whose router learns from competitions between its experts."""

from collections.abc import Callable

from torch import Tensor, nn

from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe.competition import (
    Affinity,
    Competition,
    Diversity,
    as_affinity,
    as_diversity,
    compete,
    distillation_loss,
    diversity_loss,
)
from tsattn.nn.moe.competition_schedule import CompetitionSchedule, ScheduleSettings
from tsattn.nn.moe.gates import LinearGate
from tsattn.nn.moe.layer import Routing
from tsattn.nn.moe.mixture import MoE
from tsattn.nn.moe.selection import Normalisation
from tsattn.ops import ValueActivation, softmax_rows


class CompeteSMoE(MoE):
    """`MoE` whose experts compete at some steps of the training, from which its gate learns.

    At a step of competition all experts answer, those with the strongest answers work for the token
    (`tsattn.nn.moe.compete`), and two losses are added: ``distillation``, by which the gate learns
    who won, and ``diversity``, by which winners come to differ. At all other steps, and always in
    evaluation, the layer is a `MoE`, and these losses are zero. The `Routing` of a competition
    still describes what the gate would have chosen, also for the balance loss; who won is in its
    ``competed_NK``.

    Unlike `MoE` it takes no ``capacity``, winners being never dropped, and no zero, copy or
    constant experts.

    The steps are planned for all layers of a network together, by the task or by
    `tsattn.nn.moe.plan_competitions`; without a plan nothing competes, and `after_step` raises.

    Args:
        d_model: width D of the tokens.
        gate: as in `MoE`; the router.
        affinity: how strong an answer is: the mean over features of ``softplus``, ``silu``,
            ``relu`` or ``sigmoid``, or the ``norm`` of the answer.
        gamma: weight of the distillation loss, which is there also with weight 0, so that every
            parameter has a gradient at every step.
        alpha: what winners weigh in the distillation loss in addition.
        beta: weight of the diversity loss.
        diversity: ``matrix`` or ``cosine``, see `tsattn.nn.moe.diversity_loss`.
        omega: probability that a layer competes at a step.
        warmup: share of the training before the first competition.
        max_layers: how many layers of a network compete at one step at most; None means a quarter
            of them, or as many as omega asks for in the mean where that is more.
        num_experts: as in `MoE`.
        top_k: as in `MoE`; as many win.
        d_ff: as in `MoE`.
        activation: as in `MoE`.
        dropout: as in `MoE`.
        experts: as in `MoE`.
        shared_experts: as in `MoE`; they take no part in competitions.
        normalisation: as in `MoEFeedForward`.
        balance: as in `MoEFeedForward`.
        router_z: as in `MoEFeedForward`.
        bias_step: as in `MoEFeedForward`.
        computing: as in `MoEFeedForward`.
        active_d_ff: as in `MoE`.

    Raises:
        ValueError: as in `MoE`, a negative weight, an unknown name, or a schedule that cannot be.

    Source: CompeteSMoE paper, section 2; values of table 17.

    Example:
        >>> from tsattn.nn.moe import plan_competitions
        >>> layer = CompeteSMoE(16, num_experts=4, warmup=0.0, omega=1.0)
        >>> plan_competitions(layer, total_steps=100)
        >>> layer(torch.randn(8, 42, 16)).routing.competed_NK.shape
        torch.Size([336, 2])
    """

    def __init__(
        self,
        d_model: int,
        gate: Callable[[int, int], nn.Module] = LinearGate,
        *,
        affinity: Affinity = "softplus",
        gamma: float = 0.01,
        alpha: float = 0.1,
        beta: float = 0.005,
        diversity: Diversity = "matrix",
        omega: float = 0.07,
        warmup: float = 0.05,
        max_layers: int | None = None,
        num_experts: int = 8,
        top_k: int | None = 2,
        d_ff: int | None = None,
        activation: ValueActivation = "gelu",
        dropout: float | None = None,
        experts: Callable[[int, int], nn.Module] | None = None,
        shared_experts: int = 0,
        normalisation: Normalisation | None = None,
        balance: float = 0.01,
        router_z: float = 0.0,
        bias_step: float = 0.0,
        computing: str = "auto",
        active_d_ff: int | None = None,
    ) -> None:
        super().__init__(
            d_model,
            gate,
            num_experts=num_experts,
            top_k=top_k,
            d_ff=d_ff,
            activation=activation,
            dropout=dropout,
            experts=experts,
            shared_experts=shared_experts,
            normalisation=normalisation,
            balance=balance,
            router_z=router_z,
            bias_step=bias_step,
            computing=computing,
            active_d_ff=active_d_ff,
        )
        for name, value in (("gamma", gamma), ("alpha", alpha), ("beta", beta)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.affinity: Affinity = as_affinity(affinity)
        self.diversity: Diversity = as_diversity(diversity)
        self.alpha = alpha
        self.loss_weights["distillation"] = gamma
        if beta:
            self.loss_weights["diversity"] = beta
        self.schedule = CompetitionSchedule(ScheduleSettings(omega, warmup, max_layers))

    def forward(self, x: Tensor) -> Fed:
        """Map tokens [..., D] to tokens of the same shape."""
        if not (self.training and self.schedule.is_on):
            return super().forward(x)
        x_ND = x.flatten(0, -2)
        competition = compete(self.experts, x_ND, self.top_k, self.affinity, self.computing)
        routing = self.route(x_ND)._replace(competed_NK=competition.winners_NK)
        output = competition.mixture
        if self.shared is not None:
            output = output + self.shared(x_ND)
        losses = self.losses(routing) | self._lessons(routing, competition)
        return Fed(output.view(x.shape), losses, routing)

    def losses(self, routing: Routing) -> dict[str, Tensor]:
        """Return the losses of a step without competition, of which the lessons are zero."""
        none = routing.logits_NE.new_zeros(())
        lessons = {
            name: none for name in ("distillation", "diversity") if name in self.loss_weights
        }
        return super().losses(routing) | lessons

    def _lessons(self, routing: Routing, competition: Competition) -> dict[str, Tensor]:
        """Return what gate and experts learn from a competition, before the weights."""
        winners, weights, outputs = competition
        router = routing.probabilities_NE  # s_R of eq. 1, a softmax over all experts
        if self.normalisation in ("sigmoid", "normalised_sigmoid"):
            router = softmax_rows(routing.logits_NE)
        lessons = {"distillation": distillation_loss(router, winners, weights, self.alpha)}
        if "diversity" in self.loss_weights:
            lessons["diversity"] = diversity_loss(outputs, self.diversity)
        return lessons
