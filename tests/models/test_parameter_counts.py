"""The published numbers of trainable parameters, exactly. Built without memory, on meta."""

import pytest
import torch

from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST


def trainable(network: ForecastNetwork) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("context", "horizon", "patch_length", "stride", "d_model", "num_heads", "d_ff", "expected"),
    [
        (336, 192, 16, 8, 16, 4, 128, 146_336),
        (336, 192, 16, 8, 128, 16, 256, 1_437_376),
        (104, 36, 24, 2, 16, 4, 128, 41_476),
    ],
)
@pytest.mark.parametrize("channels", [1, 7, 21, 321, 862])
def test_patchtst_has_the_published_number_whatever_the_channels(
    channels: int,
    context: int,
    horizon: int,
    patch_length: int,
    stride: int,
    d_model: int,
    num_heads: int,
    d_ff: int,
    expected: int,
) -> None:
    with torch.device("meta"):
        network = PatchTST(
            channels,
            context,
            horizon,
            patch_length=patch_length,
            stride=stride,
            d_model=d_model,
            num_heads=num_heads,
            d_ff=d_ff,
            value_activation="tanh",
        )
    assert trainable(network) == expected
    assert network.embed.num_patches == 42


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(7, 10_540_039), (21, 10_590_229), (321, 11_665_729), (862, 13_605_214)],
)
@pytest.mark.parametrize(("context", "horizon", "label"), [(96, 192, 48), (36, 36, 18)])
def test_the_transformer_has_the_published_number_whatever_the_window(
    context: int, horizon: int, label: int, channels: int, expected: int
) -> None:
    with torch.device("meta"):
        network = EncoderDecoderTransformer(
            channels, context, horizon, label=label, value_activation="gelu"
        )
    assert trainable(network) == expected
