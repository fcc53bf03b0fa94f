"""The axis legend and the tensor aliases that signatures use.

A name ends in the axes of its tensor, so ``x_BTC`` is [batch, context, channels]:

====== ==========================================================
suffix axis
====== ==========================================================
B      batch (windows)
T      context steps; in plans of a training, optimiser steps
H      horizon steps
C      channels
P      patches
D      width (``d_model``)
N      attention heads; in ``tsattn.nn.moe``, tokens
Q, K   query and key positions; in ``tsattn.nn.moe``, K experts of each token
W      width of one head; in ``tsattn.data``, windows
V      width of the values of one head
M      calendar features ("marks")
G      covariates given ahead
O      covariates observed up to now
A      attributes of a series: static features
R      rows of a table
E      experts
S      slots, one for each token and chosen expert
F      hidden units of an expert
====== ==========================================================
"""

from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Context = Float[Tensor, "B T C"]
Horizon = Float[Tensor, "B H C"]
ContextMarks = Float[Tensor, "B T M"]
HorizonMarks = Float[Tensor, "B H M"]
Tokens = Float[Tensor, "B L D"]
Queries = Float[Tensor, "B N Q W"]
Keys = Float[Tensor, "B N K W"]
Values = Float[Tensor, "B N K V"]
Scores = Float[Tensor, "B N Q K"]
Mask = Bool[Tensor, "..."] | Float[Tensor, "..."]
Index = Int[Tensor, "B"]
FlatTokens = Float[Tensor, "N D"]
Logits = Float[Tensor, "N E"]
Chosen = Int[Tensor, "N K"]
Weights = Float[Tensor, "N K"]
ExpertBias = Float[Tensor, "E"]
ExpertCounts = Int[Tensor, "E"]
ChosenOutputs = Float[Tensor, "N K D"]
CompetitionPlan = Bool[Tensor, "T L"]


class CovariateSizes(NamedTuple):
    """How many covariates there are of each kind.

    Attributes:
        known: covariates that are known ahead, over the horizon too.
        past: covariates that are known up to now.
        static: features that do not change within a series.
    """

    known: int = 0
    past: int = 0
    static: int = 0

    def __str__(self) -> str:
        return f"{self.known} known ahead, {self.past} past, {self.static} static"


class Covariates(NamedTuple):
    """What is known of a batch of windows beside their values; a kind that is missing has width 0.

    A tuple, since trainers move and convert the tensors of tuples.

    Attributes:
        known_BLG: covariates that are known ahead, over the context and then the horizon.
        past_BTO: covariates that are known up to now, over the context.
        static_BA: features that do not change within a series.
    """

    known_BLG: Float[Tensor, "B L G"]
    past_BTO: Float[Tensor, "B T O"]
    static_BA: Float[Tensor, "B A"]

    def to(self, device: torch.device | str) -> Self:
        """Return the same on a device."""
        return type(self)(*(one.to(device) for one in self))
