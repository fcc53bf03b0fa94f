"""Gates: which expert suits a token how well."""

from tsattn.nn.moe.gates.base import Gate
from tsattn.nn.moe.gates.cosine import CosineGate, PerturbedCosineGate
from tsattn.nn.moe.gates.gaussian import GaussianGate
from tsattn.nn.moe.gates.linear import LinearGate, SigmoidGate
from tsattn.nn.moe.gates.overhead import GateCost, gate_cost, quadratic_overhead
from tsattn.nn.moe.gates.quadratic import QuadraticMonomialGate, QuadraticPolynomialGate
from tsattn.nn.moe.gates.wrappers import (
    DenseToSparse,
    DenseToSparseGate,
    GateFactory,
    Hierarchical,
    HierarchicalGate,
)

__all__ = [
    "CosineGate",
    "DenseToSparse",
    "DenseToSparseGate",
    "Gate",
    "GateCost",
    "GateFactory",
    "GaussianGate",
    "Hierarchical",
    "HierarchicalGate",
    "LinearGate",
    "PerturbedCosineGate",
    "QuadraticMonomialGate",
    "QuadraticPolynomialGate",
    "SigmoidGate",
    "gate_cost",
    "quadratic_overhead",
]
