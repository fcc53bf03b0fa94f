"""Where networks say that the tokens of their mixtures come from."""

from functools import partial
from typing import Any

import pytest
import torch

from tsattn.models import DLinear, EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe import MoE, MoEFeedForward

MIXTURE = partial(MoE, num_experts=4)
SIZES: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 16, "feedforward": MIXTURE}
NETWORKS: list[ForecastNetwork] = [
    PatchTST(3, 21, 5, patch_length=4, num_layers=2, **SIZES),
    PatchTST(3, 21, 5, patch_length=5, stride=3, end_padding=False, **SIZES),
    EncoderDecoderTransformer(3, 21, 5, decoder_layers=2, calendar_features=0, **SIZES),
]


def note_tokens(seen: dict[str, int], name: str, module: object, inputs: object, fed: Fed) -> None:
    seen[name] = len(fed.routing.experts_NK)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_a_layer_has_a_place_for_every_token(network: ForecastNetwork) -> None:
    seen: dict[str, int] = {}
    for name, module in network.named_modules():
        if isinstance(module, MoEFeedForward):
            module.register_forward_hook(partial(note_tokens, seen, name))
    with torch.inference_mode():
        network.eval()(torch.randn(2, 21, 3))
    assert len(seen) > 1
    for name, tokens in seen.items():
        places = network.token_places(name)
        assert places is not None
        assert 2 * len(places.steps_L) == tokens
        assert 0 <= places.steps_L.min() <= places.steps_L.max() < 21 + 5
        if places.channels_L is not None:
            assert len(places.channels_L) == len(places.steps_L)


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_a_patch_holds_the_step_and_the_channel_of_its_place(network: PatchTST) -> None:
    places = network.token_places("layers.0.feedforward")
    assert places is not None
    assert places.channels_L is not None
    x = torch.zeros(1, 21, 3)
    calm = network.eval().embed(x).flatten(1, 2)
    patches = network.embed.num_patches
    for token, (step, channel) in enumerate(
        zip(places.steps_L.tolist(), places.channels_L.tolist(), strict=True)
    ):
        stirred = x.clone()
        stirred[0, step, channel] = 1.0
        moved = (network.embed(stirred).flatten(1, 2) != calm).any(dim=-1)[0]
        assert moved[token]
        start = token % patches * network.embed.stride
        assert abs(start + (network.embed.patch_length - 1) / 2 - step) <= 1
        assert set((moved.nonzero().flatten() // patches).tolist()) == {channel}


def test_the_last_layer_of_a_decoder_sees_the_horizon_alone() -> None:
    network = NETWORKS[2]
    steps = {
        name: network.token_places(f"{name}.feedforward")
        for name in ("encoder.0", "decoder.0", "decoder.1")
    }
    assert [place and place.steps_L.tolist() for place in steps.values()] == [
        list(range(21)),
        list(range(11, 26)),  # the label is half of the context
        list(range(21, 26)),
    ]


def test_what_a_network_does_not_know_it_does_not_say() -> None:
    assert DLinear(3, 21, 5).token_places("anything") is None
    assert NETWORKS[0].token_places("head") is None
    assert NETWORKS[2].token_places("project") is None
