import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.interop.published_plain import (
    PATCHTST,
    assert_same_tensors,
    draw_patchtst,
    plain_patchtst,
)
from tests.models.perturbing import perturbed
from tsattn.errors import CheckpointError, ConfigError
from tsattn.interop.published import from_state_dict, to_state_dict
from tsattn.models import DLinear, EncoderDecoderTransformer, PatchTST

VARIANTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "tanh": {"value_activation": "tanh"},
    "individual": {"individual": 1},
    "affine": {"affine": 1},
    "subtract_last": {"subtract_last": 1},
    "affine, subtract_last, individual": {"affine": 1, "subtract_last": 1, "individual": True},
    "no revin": {"revin": 0},
    "no end padding": {"padding_patch": None},
    "layer norm": {"norm": "LayerNorm"},
    "no residual scores": {"res_attention": False},
    "one channel": {"enc_in": 1, "individual": 1},
}
OPTIONAL = ("num_batches_tracked", "sdp_attn.scale", "position_embedding.pe")

any_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture
def transformer(golden: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict and the config of a published Transformer, with weights drawn anew."""
    with safe_open(golden / "transformer.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        names = [name for name in list(file.keys()) if name.startswith("state.")]
        state = {name.removeprefix("state."): file.get_tensor(name) for name in names}
    return {k: t if k.endswith(OPTIONAL) else torch.randn_like(t) for k, t in state.items()}, config


@any_variant
def test_a_published_patchtst_comes_back_bit_for_bit(variant: dict[str, Any]) -> None:
    config = PATCHTST | variant
    state = draw_patchtst(config)
    assert_same_tensors(to_state_dict(from_state_dict(state, config)), state)


@any_variant
def test_a_patchtst_of_ours_comes_back_bit_for_bit(variant: dict[str, Any]) -> None:
    config = PATCHTST | variant
    network = perturbed(from_state_dict(draw_patchtst(config), config))
    again = from_state_dict(to_state_dict(network), config)
    assert again.init_args == network.init_args
    assert_same_tensors(again.state_dict(), network.state_dict())


@any_variant
def test_a_published_patchtst_forecasts_as_its_formulas_say(variant: dict[str, Any]) -> None:
    config = PATCHTST | variant
    state = draw_patchtst(config)
    x = torch.randn(4, config["seq_len"], config["enc_in"]).double().cumsum(1)
    network = from_state_dict(state, config).double()
    torch.testing.assert_close(network(x).mean, plain_patchtst(state, config, x))


def test_a_published_transformer_comes_back_bit_for_bit(
    transformer: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    state, config = transformer
    again = to_state_dict(from_state_dict(state, config))
    for name in state:
        if name.endswith(".pe"):  # a fixed table, written anew
            torch.testing.assert_close(again.pop(name), state[name], rtol=0, atol=1e-5)
    assert_same_tensors(again, {k: t for k, t in state.items() if not k.endswith(".pe")})


@pytest.mark.parametrize("layers", [(1, 1), (3, 2)])
def test_a_transformer_of_ours_comes_back_bit_for_bit(layers: tuple[int, int]) -> None:
    config = {
        "enc_in": 3, "dec_in": 3, "c_out": 3, "seq_len": 10, "label_len": 4, "pred_len": 5,
        "e_layers": layers[0], "d_layers": layers[1], "n_heads": 2, "d_model": 8, "d_ff": 12,
    }  # fmt: skip
    network = EncoderDecoderTransformer(
        3, 10, 5, label=4, encoder_layers=layers[0], decoder_layers=layers[1], num_heads=2,
        d_model=8, d_ff=12, calendar_features=6, dropout=0.0,
    ).eval()  # fmt: skip
    again = from_state_dict(to_state_dict(network), config)
    assert again.init_args == network.init_args
    assert_same_tensors(again.state_dict(), network.state_dict())


def test_what_is_written_shares_no_memory_with_the_network() -> None:
    network = from_state_dict(draw_patchtst(PATCHTST), PATCHTST)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensor in to_state_dict(network).values():
        tensor.zero_()
    assert_same_tensors(network.state_dict(), before)


def test_what_is_read_shares_no_memory_with_the_file() -> None:
    state = draw_patchtst(PATCHTST)
    network = from_state_dict(state, PATCHTST)
    before = {name: tensor.clone() for name, tensor in state.items()}
    perturbed(network)
    assert_same_tensors(state, before)


def test_a_network_comes_back_in_evaluation_mode_and_trainable() -> None:
    network = from_state_dict(draw_patchtst(PATCHTST), PATCHTST)
    assert not network.training
    assert all(p.requires_grad for p in network.parameters())


def test_double_precision_survives_the_exchange() -> None:
    network = perturbed(from_state_dict(draw_patchtst(PATCHTST), PATCHTST).double())
    again = from_state_dict(to_state_dict(network), PATCHTST)
    assert_same_tensors(again.state_dict(), network.state_dict())


@pytest.mark.parametrize("ending", ["num_batches_tracked", "sdp_attn.scale"])
def test_fixed_buffers_of_a_patchtst_may_be_absent(ending: str) -> None:
    state = draw_patchtst(PATCHTST)
    fewer = {name: tensor for name, tensor in state.items() if not name.endswith(ending)}
    assert len(fewer) < len(state)
    x = torch.randn(2, 22, 3)
    expected = from_state_dict(state, PATCHTST)(x).mean
    torch.testing.assert_close(from_state_dict(fewer, PATCHTST)(x).mean, expected, rtol=0, atol=0)


def test_the_position_tables_of_a_transformer_may_be_absent(
    transformer: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    state, config = transformer
    fewer = {name: tensor for name, tensor in state.items() if not name.endswith(".pe")}
    assert len(fewer) == len(state) - 2
    assert_same_tensors(
        from_state_dict(fewer, config).state_dict(), from_state_dict(state, config).state_dict()
    )


def test_a_fixed_table_with_other_values_is_refused(
    transformer: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    state, config = transformer
    name = "enc_embedding.position_embedding.pe"
    with pytest.raises(CheckpointError, match=name):
        from_state_dict(state | {name: state[name] + 0.1}, config)


def test_names_and_shapes_that_do_not_fit_are_all_named() -> None:
    state = draw_patchtst(PATCHTST)
    del state["model.backbone.W_pos"], state["model.head.linear.bias"]
    state["model.backbone.extra"] = torch.zeros(1)
    state["model.backbone.W_P.weight"] = torch.zeros(8, 7)
    with pytest.raises(CheckpointError) as error:
        from_state_dict(state, PATCHTST)
    message = str(error.value)
    assert "missing: model.backbone.W_pos, model.head.linear.bias" in message
    assert "unexpected: model.backbone.extra" in message
    assert "model.backbone.W_P.weight is [8, 7] instead of [8, 6]" in message
    assert "W_P.bias" not in message


def test_a_transformer_without_its_calendar_weights_is_refused_by_name(
    transformer: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    state, config = transformer
    name = "enc_embedding.temporal_embedding.embed.weight"
    del state[name]
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        from_state_dict(state, config)


def test_a_state_dict_of_something_else_is_refused_with_its_names() -> None:
    with pytest.raises(CheckpointError, match=r"neither .*PatchTST.*Transformer.*fc1\.weight"):
        from_state_dict({"fc1.weight": torch.zeros(2, 2)}, PATCHTST)
    with pytest.raises(CheckpointError, match="neither"):
        from_state_dict({}, PATCHTST)


def test_a_patchtst_is_refused_where_the_config_says_another_size() -> None:
    state = draw_patchtst(PATCHTST)
    with pytest.raises(CheckpointError, match=r"head\.linear\.weight is \[5, .*instead of \[9, "):
        from_state_dict(state, PATCHTST | {"pred_len": 9})
    with pytest.raises(CheckpointError, match=r"missing: .*layers\.2\."):
        from_state_dict(state, PATCHTST | {"e_layers": 3})
    with pytest.raises(CheckpointError, match=r"unexpected: .*layers\.1\."):
        from_state_dict(state, PATCHTST | {"e_layers": 1})


NEEDED = (
    "enc_in", "seq_len", "pred_len", "e_layers", "n_heads", "d_model", "d_ff", "patch_len",
    "stride",
)  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_an_argument_missing_from_the_config_is_named(name: str) -> None:
    config = {k: v for k, v in PATCHTST.items() if k != name}
    with pytest.raises(ConfigError, match=f"lacks '{name}'"):
        from_state_dict(draw_patchtst(PATCHTST), config)


@pytest.mark.parametrize("name", ["enc_in", "label_len", "d_layers", "d_model"])
def test_an_argument_missing_from_a_transformers_config_is_named(
    name: str, transformer: tuple[dict[str, Tensor], dict[str, Any]]
) -> None:
    state, config = transformer
    del config[name]
    with pytest.raises(ConfigError, match=f"lacks '{name}'"):
        from_state_dict(state, config)


@pytest.mark.parametrize(
    ("name", "value"), [("decomposition", 1), ("norm", "InstanceNorm"), ("pre_norm", True)]
)
def test_what_our_patchtst_does_not_have_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r} cannot be exchanged"):
        from_state_dict(draw_patchtst(PATCHTST), PATCHTST | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("dec_in", 8), ("c_out", 1), ("embed", "fixed"), ("embed_type", 1), ("activation", "relu")],
)
def test_what_our_transformer_does_not_have_is_refused_by_name(
    name: str, value: Any, transformer: tuple[dict[str, Tensor], dict[str, Any]]
) -> None:
    state, config = transformer
    with pytest.raises(ConfigError, match=f"{name}={value!r} cannot be exchanged"):
        from_state_dict(state, config | {name: value})


@pytest.mark.parametrize("activation", ["sigmoid", torch.sin])
def test_a_value_activation_of_the_config_reaches_every_attention(
    activation: str | Callable[[Tensor], Tensor],
    transformer: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    for state, config in (transformer, (draw_patchtst(PATCHTST), PATCHTST)):
        network = from_state_dict(state, config | {"value_activation": activation})
        found = [m.value_activation for m in network.modules() if hasattr(m, "value_activation")]
        assert len(found) == (4 if isinstance(network, EncoderDecoderTransformer) else 2)
        assert set(found) == {activation}


def test_an_unknown_value_activation_is_refused_with_the_six() -> None:
    with pytest.raises(ValueError, match="unknown value_activation 'swish'; expected one of"):
        from_state_dict(draw_patchtst(PATCHTST), PATCHTST | {"value_activation": "swish"})


def test_a_network_the_published_code_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="no DLinear"):
        to_state_dict(DLinear(3, 20, 5))


def test_weights_the_published_code_has_no_place_for_are_not_lost_in_silence() -> None:
    network = PatchTST(
        1, 8, 2, d_model=4, num_heads=2, d_ff=4, num_layers=1, value_activation=nn.PReLU()
    )
    with pytest.raises(ConfigError, match=r"layers\.0\.attention\.value_activation\.weight"):
        to_state_dict(network)
    transformer = EncoderDecoderTransformer(1, 8, 2, d_model=4, num_heads=2, calendar_features=0)
    with pytest.raises(ConfigError, match="calendar_features=0"):
        to_state_dict(transformer)
    with pytest.raises(ConfigError, match="prenorm=True"):
        to_state_dict(PatchTST(1, 8, 2, d_model=4, num_heads=2, prenorm=True))
    with pytest.raises(ConfigError, match=r"covariates \(2 known ahead, 0 past, 0 static\)"):
        to_state_dict(PatchTST(1, 8, 2, d_model=4, num_heads=2, known_covariates=2))
