"""How many floating-point operations a network needs, counted by hand from its sizes.

Dense products alone: a multiplication and an addition each. Counted so, the figure is the same
whoever computes the network, and whether or not a kernel shows its products to torch's counter.
"""

from tsattn.bench.recipes import Recipe

BACKWARD = 2
"""Backward passes in units of forward ones: gradients of both factors of every product."""


def forward_gflop(recipe: Recipe) -> float:
    """Return the arithmetic of the forward pass of a batch, in 1e9 operations."""
    per_window = _patchtst(recipe) if recipe.is_patchtst else _transformer(recipe)
    return 1e-9 * recipe.batch * per_window


def _patchtst(recipe: Recipe) -> float:
    channels, context, horizon = recipe.sizes
    given = recipe.network().init_args
    width, hidden, stride = given["d_model"], given["d_ff"], given["stride"]
    padding = stride if given["end_padding"] else 0
    patches = (context + padding - given["patch_length"]) // stride + 1
    embed = 2 * given["patch_length"] * width
    layers = given["num_layers"] * (_attention(patches, width) + _feedforward(width, hidden))
    head = 2 * width * patches * horizon
    return channels * (patches * (embed + layers) + head)


def _transformer(recipe: Recipe) -> float:
    channels, context, horizon = recipe.sizes
    given = recipe.network().init_args
    width, hidden, marks = given["d_model"], given["d_ff"], given["calendar_features"]
    target = (context // 2 if given["label"] is None else given["label"]) + horizon
    embed = 2 * (3 * channels + marks) * width
    encoder = _attention(context, width) + _feedforward(width, hidden)
    # queries and outputs from the decoder's tokens, keys and values from the encoder's
    cross = 4 * width**2 * (target + context) + 4 * target * context * width
    decoder = cross + target * (_attention(target, width) + _feedforward(width, hidden))
    return (
        (context + target) * embed
        + given["encoder_layers"] * context * encoder
        + given["decoder_layers"] * decoder
        + 2 * horizon * width * channels
    )


def _attention(length: int, width: int) -> int:
    """Four projections and two products with all keys, per token."""
    return 8 * width**2 + 4 * length * width


def _feedforward(width: int, hidden: int) -> int:
    return 4 * width * hidden
