"""Encoder layer, decoder layer, feed-forward and head."""

import pytest
import torch
from torch.nn import functional as F

from tests.nn.dropping import dropouts_in_order
from tsattn.nn import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    ForecastHead,
    MultiHeadActiveAttention,
    token_norm,
)
from tsattn.nn.attention import ScoreFactors
from tsattn.nn.dropout import joint_rate
from tsattn.ops import dropout


def encoder_layer(prenorm: bool = False, keep_scores: bool = False) -> EncoderLayer:
    return EncoderLayer(
        MultiHeadActiveAttention(8, 2, value_activation="tanh"),
        FeedForward(8, 16),
        token_norm("layer", 8),
        token_norm("layer", 8),
        prenorm=prenorm,
        keep_scores=keep_scores,
    )


def test_a_post_norm_layer_normalises_after_each_addition() -> None:
    layer, x = encoder_layer(), torch.randn(3, 5, 8)
    middle = layer.attention_norm(x + layer.attention(x).output)
    expected = layer.feedforward_norm(middle + layer.feedforward(middle))
    torch.testing.assert_close(layer(x).tokens, expected)


def test_scores_grow_from_layer_to_layer_only_where_they_are_kept() -> None:
    x, previous = torch.randn(3, 5, 8), ScoreFactors((torch.randn(3, 5, 24),), None)
    layer = encoder_layer(keep_scores=True)
    alone, summed = layer(x).factors, layer(x, previous).factors
    assert alone is not None
    assert summed is not None
    assert len(alone.projections) == 1
    assert summed.projections[0] is previous.projections[0]
    torch.testing.assert_close(summed.projections[1], alone.projections[0])
    assert not torch.allclose(layer(x).tokens, layer(x, previous).tokens)
    assert encoder_layer()(x).factors is None


def test_two_dropouts_in_a_row_are_one_of_their_joint_rate() -> None:
    assert joint_rate(0.3, 0.3) == pytest.approx(0.51)
    assert joint_rate(0.0, 0.2) == pytest.approx(0.2)
    ones = torch.ones(200_000)
    twice = F.dropout(F.dropout(ones, 0.3), 0.2)
    once = dropout(ones, joint_rate(0.3, 0.2))
    assert once.max() == pytest.approx(twice.max().item(), rel=1e-4)
    assert (once == 0).float().mean().item() == pytest.approx(0.44, abs=0.01)


def test_the_attention_branch_of_an_encoder_layer_is_dropped_twice() -> None:
    passed = [name for name, _ in dropouts_in_order(encoder_layer(), torch.randn(3, 5, 8))]
    assert passed == ["attention_dropout", "dropout", "feedforward.dropout", "dropout"]


def decoder_layer() -> DecoderLayer:
    attentions = [MultiHeadActiveAttention(8, 2, value_activation="silu") for _ in range(2)]
    return DecoderLayer(attentions[0], attentions[1], FeedForward(8, 16), 8)


def test_a_decoder_layer_looks_at_itself_then_at_the_memory_then_feeds_forward() -> None:
    layer, x, memory = decoder_layer(), torch.randn(3, 5, 8), torch.randn(3, 9, 8)
    y = layer.self_norm(x + layer.self_attention(x, is_causal=True).output)
    y = layer.cross_norm(y + layer.cross_attention(y, memory).output)
    expected = layer.feedforward_norm(y + layer.feedforward(y))
    torch.testing.assert_close(layer(x, memory).tokens, expected)


def test_every_branch_of_a_decoder_layer_is_dropped_once() -> None:
    inputs = torch.randn(3, 5, 8), torch.randn(3, 9, 8)
    passed = [name for name, _ in dropouts_in_order(decoder_layer(), *inputs)]
    assert passed == ["dropout", "dropout", "feedforward.dropout", "dropout"]


def test_a_decoder_token_depends_on_earlier_tokens_and_on_the_whole_memory() -> None:
    layer = decoder_layer()
    x = torch.randn(1, 5, 8, requires_grad=True)
    memory = torch.randn(1, 9, 8, requires_grad=True)
    to_x, to_memory = torch.autograd.grad(layer(x, memory).tokens[0, 2].square().sum(), (x, memory))
    assert (to_x[0, :3].norm(dim=-1) > 0).all()
    assert (to_x[0, 3:] == 0).all()
    assert (to_memory[0].norm(dim=-1) > 0).all()


def test_a_decoder_layer_goes_on_with_its_last_tokens_alone() -> None:
    layer = DecoderLayer(
        MultiHeadActiveAttention(8, 2), MultiHeadActiveAttention(8, 2), FeedForward(8, 16), 8
    )
    x, memory = torch.randn(2, 6, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x, memory, last=4).tokens, layer(x, memory).tokens[:, 2:])


def test_the_feed_forward_is_two_linear_maps_around_an_exact_gelu() -> None:
    feedforward, x = FeedForward(8, 16).double(), torch.randn(2, 3, 8).double()
    hidden = x @ feedforward.expand.weight.T + feedforward.expand.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = hidden @ feedforward.contract.weight.T + feedforward.contract.bias
    torch.testing.assert_close(feedforward(x), expected)


@pytest.mark.parametrize("batch", [1, 2])  # fewer and more rows than steps of the horizon
def test_a_shared_head_is_one_linear_map(batch: int) -> None:
    head, tokens = ForecastHead(6, 4, 3), torch.randn(batch, 3, 3, 2)
    assert (head.weight.shape, head.bias.shape) == ((4, 6), (4,))
    features = tokens.transpose(2, 3).flatten(2)  # feature d * patches + p
    expected = F.linear(features, head.weight, head.bias)
    torch.testing.assert_close(head(tokens), expected)
    torch.testing.assert_close(head(features), expected)


def test_an_individual_head_has_a_linear_map_for_every_channel() -> None:
    head, tokens = ForecastHead(6, 4, 3, individual=True), torch.randn(2, 3, 3, 2)
    x = tokens.transpose(2, 3).flatten(2)
    expected = [F.linear(x[:, c], head.weight[c], head.bias[c]) for c in range(3)]
    torch.testing.assert_close(head(tokens), torch.stack(expected, dim=1))


@pytest.mark.parametrize("individual", [False, True])
def test_a_head_starts_like_torchs_linear_map(individual: bool) -> None:
    head = ForecastHead(100, 50, 3, individual=individual)
    for parameter in head.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1  # uniform up to 1 / sqrt(features)


def test_the_head_drops_steps_of_the_forecast() -> None:
    head, tokens = ForecastHead(6, 50, 3, dropout=0.5), torch.randn(8, 3, 2, 3)
    assert 0.4 < (head(tokens) == 0).float().mean() < 0.6
    assert (head.eval()(tokens) != 0).all()
