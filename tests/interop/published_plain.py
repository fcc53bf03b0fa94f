"""The published PatchTST said once more, as one plain function of its state dict.

Also the names and shapes that its state dicts have, so that tests need no state dict of our making.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Config = Mapping[str, Any]
PATCHTST: dict[str, Any] = {
    "enc_in": 3, "seq_len": 22, "pred_len": 5, "e_layers": 2, "n_heads": 2, "d_model": 8,
    "d_ff": 12, "dropout": 0.1, "fc_dropout": 0.1, "head_dropout": 0.0, "individual": 0,
    "patch_len": 6, "stride": 3, "padding_patch": "end", "revin": 1, "affine": 0,
    "subtract_last": 0, "decomposition": 0, "kernel_size": 25,
}  # fmt: skip
"""The config of a small published PatchTST."""
LAYER = "model.backbone.encoder.layers.{}"


def patches_of(config: Config) -> int:
    padding = config["stride"] if config.get("padding_patch") == "end" else 0
    return (config["seq_len"] + padding - config["patch_len"]) // config["stride"] + 1


def patchtst_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the names of a published PatchTST's state dict and their shapes."""
    width, hidden, channels = config["d_model"], config["d_ff"], config["enc_in"]
    features, horizon = width * patches_of(config), config["pred_len"]
    linear: dict[str, tuple[int, int]] = {"model.backbone.W_P": (width, config["patch_len"])}
    shapes: dict[str, tuple[int, ...]] = {"model.backbone.W_pos": (patches_of(config), width)}
    for i in range(config["e_layers"]):
        layer = LAYER.format(i)
        for name in ("W_Q", "W_K", "W_V", "to_out.0"):
            linear[f"{layer}.self_attn.{name}"] = (width, width)
        shapes[f"{layer}.self_attn.sdp_attn.scale"] = ()
        linear[f"{layer}.ff.0"], linear[f"{layer}.ff.3"] = (hidden, width), (width, hidden)
        for norm in ("norm_attn", "norm_ffn"):
            if config.get("norm", "BatchNorm") == "LayerNorm":
                shapes |= {f"{layer}.{norm}.{name}": (width,) for name in ("weight", "bias")}
                continue
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{layer}.{norm}.1.{name}"] = (width,)
            shapes[f"{layer}.{norm}.1.num_batches_tracked"] = ()
    heads = [f"linears.{i}" for i in range(channels)] if config["individual"] else ["linear"]
    linear |= {f"model.head.{head}": (horizon, features) for head in heads}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if config["revin"] and config["affine"]:
        shapes |= {f"model.revin_layer.affine_{n}": (channels,) for n in ("weight", "bias")}
    return shapes


def draw_patchtst(config: Config) -> dict[str, Tensor]:
    """Draw a state dict of a published PatchTST that has been trained, as it were."""
    state: dict[str, Tensor] = {}
    for name, shape in patchtst_shapes(config).items():
        if name.endswith("scale"):
            state[name] = torch.tensor((config["d_model"] // config["n_heads"]) ** -0.5)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1234)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape) + 0.5
        else:
            state[name] = torch.randn(shape) * 0.3 + (name.endswith("weight") and len(shape) == 1)
    return state


def plain_patchtst(state: Mapping[str, Tensor], config: Config, x_BTC: Tensor) -> Tensor:
    """Forecast as the published code does in evaluation mode, in the dtype of the window."""
    weights = {k: t.to(x_BTC.dtype) if t.is_floating_point() else t for k, t in state.items()}
    x, level, spread = x_BTC, torch.zeros(()), torch.ones(())
    scale = weights.get("model.revin_layer.affine_weight", torch.ones(()))
    shift = weights.get("model.revin_layer.affine_bias", torch.zeros(()))
    if config["revin"]:
        spread = (x.var(1, correction=0, keepdim=True) + 1e-5) ** 0.5
        level = x[:, -1:] if config["subtract_last"] else x.mean(1, keepdim=True)
        x = (x - level) / spread * scale + shift
    if config.get("padding_patch") == "end":
        x = torch.cat([x, x[:, -1:].expand(-1, config["stride"], -1)], dim=1)
    starts = [config["stride"] * p for p in range(patches_of(config))]
    patches = torch.stack([x[:, s : s + config["patch_len"]] for s in starts], dim=1)  # B P L C
    tokens = _linear(weights, "model.backbone.W_P", patches.permute(0, 3, 1, 2))
    tokens = tokens + weights["model.backbone.W_pos"]
    scores = None
    for i in range(config["e_layers"]):
        tokens, scores = _layer(weights, LAYER.format(i), config, tokens, scores)
    features = tokens.transpose(2, 3).flatten(2)
    if config["individual"]:
        maps = [f"model.head.linears.{c}" for c in range(config["enc_in"])]
        y = torch.stack([_linear(weights, m, features[:, c]) for c, m in enumerate(maps)], dim=2)
    else:
        y = _linear(weights, "model.head.linear", features).transpose(1, 2)
    if config["revin"]:
        y = (y - shift) / (scale + 1e-10) * spread + level
    return y


def _layer(
    weights: Mapping[str, Tensor], name: str, config: Config, x: Tensor, previous: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One encoder layer on tokens [B, C, P, D]."""
    q, k, v = (
        _linear(weights, f"{name}.self_attn.{m}", x).unflatten(-1, (config["n_heads"], -1))
        for m in ("W_Q", "W_K", "W_V")
    )
    v = getattr(torch, config.get("value_activation", "clone"))(v)
    scores = torch.einsum("bcqnw,bcknw->bcnqk", q, k) * (q.shape[-1] ** -0.5)
    if config.get("res_attention", True) and previous is not None:
        scores = scores + previous
    attended = torch.einsum("bcnqk,bcknw->bcqnw", scores.softmax(-1), v).flatten(-2)
    x = x + _linear(weights, f"{name}.self_attn.to_out.0", attended)
    x = _norm(weights, f"{name}.norm_attn", x)
    x = x + _linear(weights, f"{name}.ff.3", F.gelu(_linear(weights, f"{name}.ff.0", x)))
    return _norm(weights, f"{name}.norm_ffn", x), scores


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    if f"{name}.1.running_mean" in weights:
        name = f"{name}.1"
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    else:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    normal = (x - mean) / (variance + 1e-5) ** 0.5
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def assert_same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Compare two state dicts bit for bit."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name
