"""Mixtures of experts: gates, the choice of experts, experts, dispatch, and the layer of them."""

from tsattn.nn.moe.balance import SelectionBias, balance_loss, router_z_loss
from tsattn.nn.moe.baselines import BASELINES, baseline
from tsattn.nn.moe.compete_smoe import CompeteSMoE
from tsattn.nn.moe.competition import (
    AFFINITIES,
    Competition,
    affinities,
    compete,
    distillation_loss,
    diversity_loss,
)
from tsattn.nn.moe.competition_schedule import CompetitionSchedule, plan_competitions
from tsattn.nn.moe.dispatch import Computing, apply_experts
from tsattn.nn.moe.experts import Experts, FeedForwardExperts, LinearExperts
from tsattn.nn.moe.gates import (
    CosineGate,
    DenseToSparse,
    DenseToSparseGate,
    Gate,
    GateCost,
    GaussianGate,
    Hierarchical,
    HierarchicalGate,
    LinearGate,
    PerturbedCosineGate,
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    SigmoidGate,
    gate_cost,
    quadratic_overhead,
)
from tsattn.nn.moe.layer import MoEFeedForward, Routing
from tsattn.nn.moe.light_experts import ConstantExperts, CopyExperts, MixedExperts, ZeroExperts
from tsattn.nn.moe.mixture import MoE
from tsattn.nn.moe.selection import NORMALISATIONS, Selection, select
from tsattn.nn.moe.upcycling import upcycle

__all__ = [
    "AFFINITIES",
    "BASELINES",
    "NORMALISATIONS",
    "CompeteSMoE",
    "Competition",
    "CompetitionSchedule",
    "Computing",
    "ConstantExperts",
    "CopyExperts",
    "CosineGate",
    "DenseToSparse",
    "DenseToSparseGate",
    "Experts",
    "FeedForwardExperts",
    "Gate",
    "GateCost",
    "GaussianGate",
    "Hierarchical",
    "HierarchicalGate",
    "LinearExperts",
    "LinearGate",
    "MixedExperts",
    "MoE",
    "MoEFeedForward",
    "PerturbedCosineGate",
    "QuadraticMonomialGate",
    "QuadraticPolynomialGate",
    "Routing",
    "Selection",
    "SelectionBias",
    "SigmoidGate",
    "ZeroExperts",
    "affinities",
    "apply_experts",
    "balance_loss",
    "baseline",
    "compete",
    "distillation_loss",
    "diversity_loss",
    "gate_cost",
    "plan_competitions",
    "quadratic_overhead",
    "router_z_loss",
    "select",
    "upcycle",
]
