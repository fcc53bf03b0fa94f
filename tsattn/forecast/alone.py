"""A network of many channels as one of a single channel, for series it never saw."""

from tsattn.errors import ConfigError
from tsattn.models import NETWORKS, ForecastNetwork


def one_channel(network: ForecastNetwork) -> ForecastNetwork:
    """Return the network for one channel, with the same weights.

    That is possible where channels are treated alike and apart: no weight of the network then has
    a size that depends on their number.

    Args:
        network: one of `tsattn.models.NETWORKS`.

    Raises:
        ConfigError: channels are mixed, or have weights of their own; with the weights.
    """
    name = type(network).__name__
    if NETWORKS.get(name) is not type(network):
        raise ConfigError(
            f"{name} is a network of your own, so nothing is known of how it treats channels; "
            "new series need one of this library"
        )
    alone = type(network)(**network.init_args | {"channels": 1})
    weights, sizes = network.state_dict(), alone.state_dict()
    own = [
        key
        for key in weights.keys() | sizes.keys()
        if key not in weights or key not in sizes or weights[key].shape != sizes[key].shape
    ]
    if own:
        raise ConfigError(
            f"this {name} cannot forecast a series it never saw: {', '.join(sorted(own)[:3])} "
            f"has a size that depends on its {network.channels} channels; train one that treats "
            "channels alike and apart (PatchTST without individual_head and revin_affine)"
        )
    alone.load_state_dict(weights)
    return alone.eval()
