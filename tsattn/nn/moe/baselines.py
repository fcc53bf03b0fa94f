"""The routers that the papers compare, each as one line of configuration."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from tsattn.nn.moe.compete_smoe import CompeteSMoE
from tsattn.nn.moe.gates import (
    CosineGate,
    LinearGate,
    PerturbedCosineGate,
    QuadraticMonomialGate,
    QuadraticPolynomialGate,
    SigmoidGate,
)
from tsattn.nn.moe.mixture import MoE

BASELINES: Mapping[str, Callable[..., MoE]] = MappingProxyType(
    {
        "SMoE": partial(MoE, gate=LinearGate),
        "XMoE": partial(MoE, gate=CosineGate),
        "PCosine": partial(MoE, gate=PerturbedCosineGate),
        "sigma-MoE": partial(MoE, gate=SigmoidGate),
        "SharedExpert-V2": partial(MoE, gate=LinearGate, shared_experts=1),
        "SharedExpert-V3": partial(
            MoE,
            gate=LinearGate,
            normalisation="normalised_sigmoid",
            shared_experts=1,
            bias_step=1e-3,
            balance=0.0,
        ),
        "CompeteSMoE": CompeteSMoE,
        "quadratic-polynomial": partial(MoE, gate=partial(QuadraticPolynomialGate, rank=8)),
        "quadratic-monomial": partial(MoE, gate=partial(QuadraticMonomialGate, rank=8)),
    }
)
"""Feed-forwards by the name of their router; other arguments are those of the class."""


def baseline(router: str, **arguments: Any) -> Callable[..., MoE]:
    """Return what a network takes as ``feedforward`` to have a router of the papers.

    Args:
        router: one of `BASELINES`.
        arguments: further arguments of `MoE` or `CompeteSMoE`, for example ``num_experts=8``.

    Raises:
        ValueError: another name.

    Source: CompeteSMoE paper, section 4.1 (all but the quadratic gates).

    Example:
        >>> baseline("XMoE", num_experts=4)(16).gate
        CosineGate(d_model=16, num_experts=4, rank=2)
    """
    if router not in BASELINES:
        raise ValueError(f"unknown router {router!r}; expected one of {', '.join(BASELINES)}")
    return partial(BASELINES[router], **arguments)
