"""Exchange with the published PatchTST and Transformer code: state dicts in, state dicts out.

`from_state_dict` builds our network from a published checkpoint's state dict, `to_state_dict`
writes one back under the published names; there and back is exact. `read_state` reads the file:
safetensors, or torch files that hold tensors alone.

Both directions share one table, `_views`: the published names on views of our parameters. Writing
copies the views out, reading copies into them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from tsattn.errors import CheckpointError, ConfigError
from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn.embed import sinusoidal_positions

_POSITION_ROWS = 5000  # of the published fixed table, whatever the window
_NORMS = {"BatchNorm": "batch", "LayerNorm": "layer"}
_ATTENTION = {"query": "W_Q", "key": "W_K", "value": "W_V", "out": "to_out.0"}


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or a torch file; pickled code is refused.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is damaged, or holds anything but tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may fail in any way
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as plain tensors by name: "
            f"{_reason(error)}; save the model's state_dict() alone"
        ) from error
    items = state.items() if isinstance(state, dict) else [(type(state).__name__, None)]
    if foreign := [k for k, v in items if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise CheckpointError(
            f"{path} must hold tensors by name and nothing else, but holds "
            f"{', '.join(map(str, foreign[:5]))}; save the model's state_dict() alone"
        )
    return cast(dict[str, Tensor], state)


def _reason(error: Exception) -> str:
    """Return what is wrong, without torch's advice to open the file unsafely."""
    lines = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first = next((line.strip() for line in lines.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.split(' Please use ')[0].rstrip('.')}"


def from_state_dict(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> ForecastNetwork:
    """Build the network that a published state dict belongs to, with its weights, in eval mode.

    Args:
        state: published names to tensors. Fixed position tables, attention scales and
            ``num_batches_tracked`` may be absent.
        config: the published argument names (``enc_in``, ``seq_len``, ``pred_len``, ``d_model``,
            ...), optionally ``value_activation`` and, for PatchTST, ``norm`` (``BatchNorm``,
            ``LayerNorm``) and ``res_attention``. Unused ones are ignored. Its ``pre_norm``
            normalises the residual path too, which is another network than ours: refused.

    Raises:
        CheckpointError: names or shapes that do not fit, each of them named.
        ConfigError: an argument is missing, or asks for what the network does not have.

    Example:
        >>> network = from_state_dict(read_state("checkpoint.pth"), config)
    """
    if any(name.startswith("model.") for name in state):
        network: ForecastNetwork = _build_patchtst(config)
    elif any(name.startswith("enc_embedding.") for name in state):
        network = _build_transformer(state, config)
    else:
        raise CheckpointError(
            "the state dict is neither of a published PatchTST (names begin with 'model.') nor of "
            f"a Transformer ('enc_embedding.'); it begins with {sorted(state)[:3]}"
        )
    if any(tensor.dtype == torch.float64 for tensor in state.values()):
        network.double()
    views = _views(network)
    _check_names(views, state)
    for name, given in state.items():
        if not _is_fixed(name):
            views[name].copy_(given)
        elif not torch.allclose(views[name].float(), given.float(), rtol=1e-4, atol=1e-5):
            raise CheckpointError(f"{name} is a fixed table, but holds other values than published")
    return network.eval()


def to_state_dict(network: ForecastNetwork) -> dict[str, Tensor]:
    """Write the network's weights under the names of the published code.

    Raises:
        ConfigError: the network is neither a `PatchTST` nor an `EncoderDecoderTransformer`, or has
            what the published code has no place for.
    """
    views = _views(network)
    homeless = [name for name in network.state_dict() if ".value_activation." in name]
    if getattr(network, "calendar_features", None) == 0:
        homeless.append("calendar_features=0")
    if network.init_args.get("prenorm"):
        homeless.append("prenorm=True")
    if any(network.covariate_sizes):
        homeless.append(f"covariates ({network.covariate_sizes})")
    if homeless:
        raise ConfigError(f"the published code has no place for {', '.join(homeless)}")
    return {name: view.clone().contiguous() for name, view in views.items()}


def _views(network: ForecastNetwork) -> dict[str, Tensor]:
    if isinstance(network, PatchTST):
        return _patchtst_views(network)
    if isinstance(network, EncoderDecoderTransformer):
        return _transformer_views(network)
    raise ConfigError(
        f"the published code has no {type(network).__name__}; "
        "expected a PatchTST or an EncoderDecoderTransformer"
    )


def _is_fixed(name: str) -> bool:
    return name.endswith((".position_embedding.pe", ".sdp_attn.scale"))


def _check_names(views: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    optional = {n for n in views if _is_fixed(n) or n.endswith(".num_batches_tracked")}
    missing = sorted(views.keys() - optional - state.keys())
    unexpected = sorted(state.keys() - views.keys())
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(views[name].shape)}"
        for name in sorted(views.keys() & state.keys())
        if state[name].shape != views[name].shape
    ]
    problems = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            "the state dict does not fit the network that the config describes; "
            + "; ".join(problems)
        )


def _argument(config: Mapping[str, Any], name: str) -> Any:
    if name not in config:
        raise ConfigError(f"the published config lacks {name!r}; it has {sorted(config)}")
    return config[name]


def _require(config: Mapping[str, Any], name: str, allowed: tuple[Any, ...]) -> None:
    given = config.get(name, allowed[0])
    if given not in allowed:
        raise ConfigError(f"{name}={given!r} cannot be exchanged; expected one of {allowed}")


def _build_patchtst(config: Mapping[str, Any]) -> PatchTST:
    _require(config, "decomposition", (0, False))
    _require(config, "norm", ("BatchNorm", "LayerNorm"))
    _require(config, "pre_norm", (False,))
    return PatchTST(
        channels=_argument(config, "enc_in"),
        context=_argument(config, "seq_len"),
        horizon=_argument(config, "pred_len"),
        patch_length=_argument(config, "patch_len"),
        stride=_argument(config, "stride"),
        num_layers=_argument(config, "e_layers"),
        d_model=_argument(config, "d_model"),
        num_heads=_argument(config, "n_heads"),
        d_ff=_argument(config, "d_ff"),
        dropout=config.get("dropout", 0.0),
        head_dropout=config.get("head_dropout", 0.0),
        value_activation=config.get("value_activation", "identity"),
        residual_scores=bool(config.get("res_attention", True)),
        norm=_NORMS[config.get("norm", "BatchNorm")],  # pyright: ignore[reportArgumentType]
        end_padding=config.get("padding_patch") == "end",
        individual_head=bool(config.get("individual", False)),
        revin=bool(config.get("revin", True)),
        revin_affine=bool(config.get("affine", False)),
        subtract_last=bool(config.get("subtract_last", False)),
    )


def _build_transformer(
    state: Mapping[str, Tensor], config: Mapping[str, Any]
) -> EncoderDecoderTransformer:
    channels = _argument(config, "enc_in")
    for name, allowed in (
        ("dec_in", (channels,)),
        ("c_out", (channels,)),
        ("embed", ("timeF",)),
        ("embed_type", (0,)),
        ("activation", ("gelu",)),
    ):
        _require(config, name, allowed)
    calendar = state.get("enc_embedding.temporal_embedding.embed.weight")
    return EncoderDecoderTransformer(
        channels=channels,
        context=_argument(config, "seq_len"),
        horizon=_argument(config, "pred_len"),
        label=_argument(config, "label_len"),
        encoder_layers=_argument(config, "e_layers"),
        decoder_layers=_argument(config, "d_layers"),
        d_model=_argument(config, "d_model"),
        num_heads=_argument(config, "n_heads"),
        d_ff=_argument(config, "d_ff"),
        dropout=config.get("dropout", 0.0),
        value_activation=config.get("value_activation", "identity"),
        calendar_features=4 if calendar is None else calendar.shape[-1],
    )


def _renamed(own: Mapping[str, Tensor], prefix: str, published: str) -> dict[str, Tensor]:
    """All entries below a module, under a published prefix."""
    return {
        published + name.removeprefix(prefix): tensor
        for name, tensor in own.items()
        if name.startswith(prefix + ".")
    }


def _patchtst_views(network: PatchTST) -> dict[str, Tensor]:
    own = network.state_dict()
    views = {
        **_renamed(own, "embed.project", "model.backbone.W_P"),
        "model.backbone.W_pos": own["embed.position"],
    }
    d_model, num_heads = network.embed.project.out_features, network.init_args["num_heads"]
    for i in range(len(network.layers)):
        ours, theirs = f"layers.{i}", f"model.backbone.encoder.layers.{i}"
        for name, published in _ATTENTION.items():
            views |= _renamed(own, f"{ours}.attention.{name}", f"{theirs}.self_attn.{published}")
        views[f"{theirs}.self_attn.sdp_attn.scale"] = torch.tensor((d_model // num_heads) ** -0.5)
        views |= _renamed(own, f"{ours}.feedforward.expand", f"{theirs}.ff.0")
        views |= _renamed(own, f"{ours}.feedforward.contract", f"{theirs}.ff.3")
        batch_norm = f"{ours}.attention_norm.running_mean" in own
        for name, published in (("attention_norm", "norm_attn"), ("feedforward_norm", "norm_ffn")):
            place = f"{theirs}.{published}" + (".1" if batch_norm else "")
            views |= _renamed(own, f"{ours}.{name}", place)
    for name in ("weight", "bias"):
        tensor = own[f"head.{name}"]
        if network.head.individual:
            for channel, own_map in enumerate(tensor):
                views[f"model.head.linears.{channel}.{name}"] = own_map
        else:
            views[f"model.head.linear.{name}"] = tensor
        if f"revin.{name}" in own:
            views[f"model.revin_layer.affine_{name}"] = own[f"revin.{name}"]
    return views


def _transformer_views(network: EncoderDecoderTransformer) -> dict[str, Tensor]:
    own = network.state_dict()
    positions = sinusoidal_positions(_POSITION_ROWS, network.project.in_features)[None]
    views: dict[str, Tensor] = {}
    for ours, theirs in (("encoder_embed", "enc_embedding"), ("decoder_embed", "dec_embedding")):
        views[f"{theirs}.position_embedding.pe"] = positions
        views[f"{theirs}.value_embedding.tokenConv.weight"] = own[f"{ours}.value.weight"]
        views |= _renamed(own, f"{ours}.calendar", f"{theirs}.temporal_embedding.embed")
    for i in range(len(network.encoder)):
        ours, theirs = f"encoder.{i}", f"encoder.attn_layers.{i}"
        views |= _attention_views(own, f"{ours}.attention", f"{theirs}.attention")
        views |= _feedforward_views(own, ours, theirs)
        views |= _renamed(own, f"{ours}.attention_norm", f"{theirs}.norm1")
        views |= _renamed(own, f"{ours}.feedforward_norm", f"{theirs}.norm2")
    for i in range(len(network.decoder)):
        ours, theirs = f"decoder.{i}", f"decoder.layers.{i}"
        for name in ("self_attention", "cross_attention"):
            views |= _attention_views(own, f"{ours}.{name}", f"{theirs}.{name}")
        views |= _feedforward_views(own, ours, theirs)
        for number, name in enumerate(("self_norm", "cross_norm", "feedforward_norm"), start=1):
            views |= _renamed(own, f"{ours}.{name}", f"{theirs}.norm{number}")
    views |= _renamed(own, "encoder_norm", "encoder.norm")
    views |= _renamed(own, "decoder_norm", "decoder.norm")
    return views | _renamed(own, "project", "decoder.projection")


def _attention_views(own: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    views: dict[str, Tensor] = {}
    for name in ("query", "key", "value", "out"):
        views |= _renamed(own, f"{ours}.{name}", f"{theirs}.{name}_projection")
    return views


def _feedforward_views(own: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    """The published products are 1x1 convolutions, ours are linear maps."""
    views: dict[str, Tensor] = {}
    for name, published in (("expand", "conv1"), ("contract", "conv2")):
        views[f"{theirs}.{published}.weight"] = own[f"{ours}.feedforward.{name}.weight"][..., None]
        views[f"{theirs}.{published}.bias"] = own[f"{ours}.feedforward.{name}.bias"]
    return views
