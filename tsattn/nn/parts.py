"""Parts of a network that are given as what builds them: by a class, a partial, or by name.

A factory is anything that builds a module from sizes. Where it is a class of `PARTS`, or a
`functools.partial` of one whose arguments are plain values or such factories again, it has a
description of names and numbers alone, which a checkpoint can hold and which builds it again.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from torch import nn

from tsattn.nn import moe
from tsattn.nn.feedforward import FeedForward

Factory = Callable[..., nn.Module]
"""Builds a module from sizes."""

PARTS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        part.__name__: part
        for part in (
            FeedForward,
            moe.MoE,
            moe.CompeteSMoE,
            moe.LinearGate,
            moe.SigmoidGate,
            moe.QuadraticPolynomialGate,
            moe.QuadraticMonomialGate,
            moe.GaussianGate,
            moe.CosineGate,
            moe.PerturbedCosineGate,
            moe.DenseToSparseGate,
            moe.HierarchicalGate,
            moe.FeedForwardExperts,
            moe.LinearExperts,
            moe.ConstantExperts,
            moe.ZeroExperts,
            moe.CopyExperts,
        )
    }
)
"""Every part by the name that recipes and checkpoints use; nothing else is ever looked up."""

_OPEN = (None, inspect.Parameter.empty)
_PLAIN = (str, int, float, bool, type(None))


def build_feedforward(
    factory: Factory | None, d_model: int, d_ff: int, dropout: float
) -> nn.Module:
    """Build the feed-forward of a layer.

    Args:
        factory: called with ``d_model``, and with ``active_d_ff`` (or else ``d_ff``) and
            ``dropout`` where it takes them and leaves them open, that is without a value or at
            None; ``None`` means the dense feed-forward.
        d_model: width of a token.
        d_ff: hidden width of the dense feed-forward.
        dropout: of its hidden units.

    Raises:
        TypeError: the factory returns something else than a module.
    """
    if factory is None:
        return FeedForward(d_model, d_ff, dropout)
    target, given = unrolled(factory)
    known = inspect.signature(target).parameters
    width = "active_d_ff" if "active_d_ff" in known else "d_ff"  # of all experts, or of it alone
    offered = {width: d_ff, "dropout": dropout}
    left_open = {
        name: value
        for name, value in offered.items()
        if name in known and given.get(name, known[name].default) in _OPEN
    }
    return _as_module(factory(d_model, **left_open), target)


def _as_module(built: object, target: Callable[..., object]) -> nn.Module:
    if not isinstance(built, nn.Module):
        raise TypeError(
            f"feedforward must build a module from d_model, {target!r} returned "
            f"{type(built).__name__}"
        )
    return built


def unrolled(factory: Callable[..., object]) -> tuple[Callable[..., object], dict[str, Any]]:
    """Return the innermost class or function of partials, and the arguments given by name."""
    given: dict[str, Any] = {}
    while isinstance(factory, functools.partial):
        wrapped = cast("functools.partial[nn.Module]", factory)
        given = {**wrapped.keywords, **given}
        # a parser's partial calls a function that calls the class, its last argument
        classes = [a for a in wrapped.args if isinstance(a, type) and issubclass(a, nn.Module)]
        factory = classes[-1] if classes else wrapped.func
    return factory, given


def describe_part(factory: Callable[..., object]) -> dict[str, Any] | None:
    """Return class and arguments of a factory in plain values, or None where that is not possible.

    Defaults are written out; sizes that the factory is called with are left out.
    """
    target, given = unrolled(factory)
    if target not in PARTS.values():
        return None
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        value = given.get(name, parameter.default)
        if value is inspect.Parameter.empty:
            continue  # a size
        if callable(value):
            value = describe_part(value)
            if value is None:
                return None
        elif not isinstance(value, _PLAIN):
            return None
        arguments[name] = value
    return {"class": target.__name__, "arguments": arguments}


def build_part(description: Mapping[str, Any]) -> Factory:
    """Return the factory that `describe_part` described.

    Raises:
        ValueError: a class that is not in the table.
    """
    name = description["class"]
    if name not in PARTS:
        raise ValueError(f"unknown part {name!r}; expected one of {', '.join(PARTS)}")
    arguments = {
        key: build_part(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
        for key, value in description["arguments"].items()
    }
    return functools.partial(PARTS[name], **arguments)
