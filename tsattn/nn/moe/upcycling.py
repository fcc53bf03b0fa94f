"""Sparse upcycling: a network of mixtures that starts from a trained dense network."""

from collections.abc import Mapping

from torch import Tensor, nn

from tsattn.nn.moe.experts import FeedForwardExperts
from tsattn.nn.moe.layer import MoEFeedForward

_COPIED = {
    "expand.weight": "expand_weight",
    "expand.bias": "expand_bias",
    "contract.weight": "contract_weight",
    "contract.bias": "contract_bias",
}
"""Parameters of the dense feed-forward, and of the experts that start as copies of it."""


def upcycle(network: nn.Module, dense: Mapping[str, Tensor]) -> None:
    """Start a network of mixtures from the weights of the same network with dense feed-forwards.

    Every expert becomes a copy of the dense feed-forward at its place, everything else is taken
    over, and gates stay as they are. With weights that sum to one, as those of ``topk_softmax`` and
    of competitions do, the network then computes what the dense one does.

    Args:
        network: its mixtures have `FeedForwardExperts` as wide as the dense feed-forwards, and no
            shared experts.
        dense: ``state_dict`` of the dense network.

    Raises:
        ValueError: experts that cannot be copies, or weights of another network, by name; the
            network is left as it was.

    Source: Komatsuzaki et al. 2023, "Sparse upcycling"; CompeteSMoE paper, appendix F.1.
    """
    parts: dict[str, nn.Module] = dict(network.named_modules())  # pyright: ignore[reportUnknownArgumentType]
    layers = {
        f"{name}." if name else "": part
        for name, part in parts.items()
        if isinstance(part, MoEFeedForward)
    }
    if not layers:
        raise ValueError(f"{type(network).__name__} has no mixtures of experts to upcycle to")
    given, state = dict(dense), network.state_dict()
    copies: dict[str, Tensor] = {}
    for prefix, layer in layers.items():
        copies |= _copies(prefix, layer, given)
    _require_fit({k: v for k, v in state.items() if not k.startswith(tuple(layers))}, given)
    network.load_state_dict(state | given | copies)


def _copies(prefix: str, layer: MoEFeedForward, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the weights of the feed-forward at one place, once for every expert."""
    experts, place = layer.experts, prefix.rstrip(".") or "the layer"
    if not isinstance(experts, FeedForwardExperts) or layer.shared is not None:
        kind = "shared experts" if layer.shared is not None else type(experts).__name__
        raise ValueError(
            f"{place} has {kind}, which cannot start as copies of a dense feed-forward; take "
            "feed-forward experts alone"
        )
    if experts.activation != "gelu":
        raise ValueError(
            f"the experts of {place} have the activation {experts.activation!r}, dense "
            "feed-forwards have 'gelu'; take that"
        )
    copies: dict[str, Tensor] = {}
    for theirs, ours in _COPIED.items():
        weight, stack = given.pop(prefix + theirs, None), getattr(experts, ours)
        if weight is None:
            raise ValueError(f"the dense network has no {prefix}{theirs}, the start of the experts")
        if weight.shape != stack.shape[1:]:
            raise ValueError(
                f"{prefix}{theirs} of the dense network is {list(weight.shape)}, an expert of "
                f"{place} needs {list(stack.shape[1:])}; experts that start as copies have d_model "
                "and d_ff of the dense feed-forward"
            )
        copies[f"{prefix}experts.{ours}"] = weight.expand_as(stack)
    return copies


def _require_fit(ours: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse weights with other names or shapes."""
    shapes = {name: list(value.shape) for name, value in given.items()}
    expected = {name: list(value.shape) for name, value in ours.items()}
    differing = [
        f"{name} {shapes.get(name, 'is missing')} instead of {expected.get(name, 'nothing')}"
        for name in sorted(shapes.keys() | expected.keys())
        if shapes.get(name) != expected.get(name)
    ]
    if differing:
        shown = differing[:5] + ["..."] * (len(differing) > 5)
        raise ValueError(f"the dense network is another one: {'; '.join(shown)}")
