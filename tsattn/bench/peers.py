"""What people use today, at the sizes of a recipe, as plain modules.

neuralforecast's PatchTST is the published architecture: it holds the weights of ours under the same
names and gives the same forecast, which the gate checks. Hugging Face's is another architecture: it
has neither residual scores nor the patch at the end (one patch fewer).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsattn.bench.plain import plain_of
from tsattn.bench.recipes import Batch, Recipe
from tsattn.errors import MissingExtraError
from tsattn.interop.published import to_state_dict
from tsattn.models import ForecastNetwork


@dataclass(frozen=True)
class Peer:
    """A module ready to be trained on one batch.

    Attributes:
        module: the module.
        forecast: calls it with the batch, already in its own layout.
        target: what it should say, in the layout of its forecast.
        as_ours: turns its forecast into [batch, horizon, channels].
        same_mathematics: whether it holds the weights of our network and must agree with it.
    """

    module: nn.Module
    forecast: Callable[[], Tensor]
    target: Tensor
    as_ours: Callable[[Tensor], Tensor]
    same_mathematics: bool


def ours(network: ForecastNetwork, batch: Batch) -> Peer:
    """Return one of our networks in the same form."""
    return Peer(network, lambda: network(*batch.inputs).mean, batch.target, lambda y: y, True)


def neuralforecast(recipe: Recipe, batch: Batch) -> Peer:
    """Build neuralforecast's PatchTST; every channel of every window is a series of its own.

    Raises:
        MissingExtraError: neuralforecast is not installed.
    """
    channels, context, horizon = recipe.sizes
    network = recipe.network()
    module = neuralforecast_module(recipe.sizes, network.init_args)
    module.load_state_dict(to_state_dict(network))
    windows = {"insample_y": batch.inputs[0].transpose(1, 2).reshape(-1, context, 1).contiguous()}
    target = batch.target.transpose(1, 2).reshape(-1, horizon, 1).contiguous()

    def as_ours(y: Tensor) -> Tensor:
        return y.view(-1, channels, horizon).transpose(1, 2)

    return Peer(module, lambda: module(windows), target, as_ours, same_mathematics=True)


def neuralforecast_module(
    sizes: tuple[int, int, int], given: Mapping[str, Any], *, seed: int = 0
) -> nn.Module:
    """Build neuralforecast's PatchTST with initial weights of its own.

    Args:
        sizes: channels, context and horizon.
        given: the arguments of our PatchTST.
        seed: of everything; its constructor sets it for the whole process.

    Raises:
        MissingExtraError: neuralforecast is not installed.
    """
    try:
        from neuralforecast.models import PatchTST as Theirs
    except ImportError as error:
        raise _missing("neuralforecast", "neuralforecast", error) from error
    _, context, horizon = sizes
    for name in ("lightning_fabric", "pytorch_lightning"):  # they announce seed and devices
        logging.getLogger(name).setLevel(logging.WARNING)
    module: Any = Theirs(
        h=horizon,
        input_size=context,
        encoder_layers=given["num_layers"],
        n_heads=given["num_heads"],
        hidden_size=given["d_model"],
        linear_hidden_size=given["d_ff"],
        dropout=given["dropout"],
        fc_dropout=given["dropout"],
        head_dropout=given.get("head_dropout", 0.0),
        attn_dropout=0.0,
        patch_len=given["patch_length"],
        stride=given["stride"],
        revin=True,
        revin_subtract_last=False,
        res_attention=True,
        batch_normalization=False,  # their name for normalising first; the norm is batch norm
        random_seed=seed,
    )
    return module


def huggingface(recipe: Recipe, batch: Batch) -> Peer:
    """Build Hugging Face's PatchTST of the nearest sizes.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: Any = huggingface_module(recipe.sizes, recipe.network().init_args)
    past = batch.inputs[0]
    return Peer(
        module,
        lambda: module(past_values=past).prediction_outputs,
        batch.target,
        lambda y: y,
        same_mathematics=False,
    )


def huggingface_module(sizes: tuple[int, int, int], given: Mapping[str, Any]) -> nn.Module:
    """Build Hugging Face's PatchTST of the nearest sizes.

    Args:
        sizes: channels, context and horizon.
        given: the arguments of our PatchTST.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import PatchTSTConfig, PatchTSTForPrediction
    except ImportError as error:
        raise _missing("Hugging Face's PatchTST", "transformers", error) from error
    channels, context, horizon = sizes
    config = PatchTSTConfig(
        num_input_channels=channels,
        context_length=context,
        patch_length=given["patch_length"],
        patch_stride=given["stride"],
        prediction_length=horizon,
        num_hidden_layers=given["num_layers"],
        d_model=given["d_model"],
        num_attention_heads=given["num_heads"],
        ffn_dim=given["d_ff"],
        norm_type="batchnorm",
        pre_norm=False,
        attention_dropout=0.0,
        positional_dropout=given["dropout"],
        path_dropout=given["dropout"],
        ff_dropout=given["dropout"],
        head_dropout=0.0,
        positional_encoding_type="random",
        pooling_type=None,
        use_cls_token=False,
        loss="mse",
    )
    return PatchTSTForPrediction(config)


def plain(recipe: Recipe, batch: Batch) -> Peer:
    """Build the network from torch's own modules, with the weights of ours."""
    module = plain_of(recipe.network())
    return Peer(module, lambda: module(*batch.inputs), batch.target, lambda y: y, True)


PEERS: Mapping[str, Callable[[Recipe, Batch], Peer]] = {
    "neuralforecast": neuralforecast,
    "huggingface": huggingface,
    "plain": plain,
}


def peers_of(recipe: Recipe) -> Mapping[str, Callable[[Recipe, Batch], Peer]]:
    """Return the peers that have a recipe's network."""
    return PEERS if recipe.is_patchtst else {"plain": plain}


def _missing(what: str, package: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"the comparison with {what} needs {package}, which cannot be imported ({error}): "
        "pip install 'tsattn[bench]', or leave it out with --peers"
    )
