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
R      rows of a table
E      experts
S      slots, one for each token and chosen expert
F      hidden units of an expert
====== ==========================================================
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Context = Float[Tensor, "B T C"]
Horizon = Float[Tensor, "B H C"]
ObservedContext = Bool[Tensor, "B T C"]
ObservedHorizon = Bool[Tensor, "B H C"]
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
