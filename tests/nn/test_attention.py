from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tsattn.nn import MultiHeadActiveAttention
from tsattn.ops import Impl


def torchs_own(ours: MultiHeadActiveAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(ours.out.in_features, ours.num_heads, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([m.weight for m in (ours.query, ours.key, ours.value)]),
            "in_proj_bias": torch.cat([m.bias for m in (ours.query, ours.key, ours.value)]),
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    return theirs


@pytest.mark.parametrize("impl", ["auto", "reference", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_with_identity_it_is_torchs_multi_head_attention(impl: str, is_causal: bool) -> None:
    attention = MultiHeadActiveAttention(12, 3, impl=impl)
    x, memory = torch.randn(2, 7, 12), torch.randn(2, 9, 12)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1) if is_causal else None
    alone, _ = torchs_own(attention)(x, x, x, attn_mask=hidden)
    across, _ = torchs_own(attention)(x, memory, memory)
    torch.testing.assert_close(attention(x, is_causal=is_causal).output, alone)
    torch.testing.assert_close(attention(x, memory).output, across)


def test_the_activation_sees_the_projected_values_with_their_bias_once() -> None:
    seen: list[Tensor] = []

    def spy(values: Tensor) -> Tensor:
        seen.append(values.detach().clone())
        return values

    attention = MultiHeadActiveAttention(12, 3, value_activation=spy)
    nn.init.constant_(attention.value.bias, 5.0)
    memory = torch.randn(2, 9, 12)
    attention(torch.randn(2, 7, 12), memory)
    expected = (memory @ attention.value.weight.T + 5.0).view(2, 9, 3, 4).transpose(1, 2)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], expected)


def test_attention_weights_sum_to_one() -> None:
    attention = MultiHeadActiveAttention(12, 3, value_activation=torch.ones_like)
    nn.init.eye_(attention.out.weight)
    nn.init.zeros_(attention.out.bias)
    output = attention(torch.randn(2, 7, 12)).output
    torch.testing.assert_close(output, torch.ones(2, 7, 12))


def test_scores_include_the_previous_ones_and_keep_their_scale() -> None:
    attention = MultiHeadActiveAttention(12, 3)
    x = torch.randn(2, 7, 12)
    first = attention(x)
    again = attention(x, previous=first.factors)
    assert again.factors is not None
    assert len(again.factors.projections) == 2
    query, key, values = (
        linear(x).unflatten(-1, (3, 4)).transpose(1, 2)
        for linear in (attention.query, attention.key, attention.value)
    )
    scores = 0.5 * query @ key.transpose(2, 3)  # 1 / sqrt(width of a head)
    expected = torch.softmax(2 * scores, dim=-1) @ values
    torch.testing.assert_close(again.output, attention.out(expected.transpose(1, 2).flatten(2)))


def test_scores_of_earlier_layers_do_not_fit_another_memory() -> None:
    attention, x = MultiHeadActiveAttention(12, 3), torch.randn(2, 7, 12)
    with pytest.raises(ValueError, match="self-attention only"):
        attention(x, torch.randn(2, 9, 12), previous=attention(x).factors)


def test_a_projection_that_is_watched_or_replaced_is_called_itself() -> None:
    attention, x = MultiHeadActiveAttention(12, 3), torch.randn(2, 7, 12)
    usual, seen = attention(x).output, []
    attention.value.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(attention(x).output, usual)
    assert seen == [1]
    attention.key = nn.Sequential(attention.key, nn.Identity())  # pyright: ignore
    torch.testing.assert_close(attention(x).output, usual)


@pytest.mark.parametrize("impl", ["auto", "reference", "sdpa"])
def test_attention_weights_are_dropped_in_training_only(impl: str) -> None:
    attention = MultiHeadActiveAttention(12, 3, weight_dropout=0.5, impl=impl)
    x = torch.randn(2, 7, 12)
    usual = attention.eval()(x).output
    torch.testing.assert_close(attention(x).output, usual, rtol=0, atol=0)
    dropped = attention.train()(x).output
    assert not torch.allclose(dropped, usual)


def test_every_attention_trains_its_own_copy_of_a_module() -> None:
    given = nn.PReLU(init=0.1)
    first = MultiHeadActiveAttention(8, 2, value_activation=given)
    second = MultiHeadActiveAttention(8, 2, value_activation=given)
    assert first.state_dict()["value_activation.weight"] == 0.1
    first(torch.randn(2, 5, 8)).output.square().sum().backward()
    own = dict(first.named_parameters())["value_activation.weight"]
    assert own.grad is not None
    assert own.grad != 0
    assert given.weight.grad is None
    with torch.no_grad():
        own += 1.0
    assert given.weight == 0.1
    assert second.state_dict()["value_activation.weight"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, "d_model=10 and num_heads=4"),
        ({"d_model": 4, "num_heads": 8}, "d_model=4 and num_heads=8"),
        ({"d_model": 4, "num_heads": 0}, "d_model=4 and num_heads=0"),
        ({"d_model": 0, "num_heads": 2}, "d_model=0 and num_heads=2"),
        ({"d_model": 8, "num_heads": 2, "value_activation": "tanhh"}, "'tanhh'"),
        ({"d_model": 8, "num_heads": 2, "impl": "flash"}, "unknown impl 'flash'"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_built(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadActiveAttention(**arguments)


def test_every_implementation_can_be_named() -> None:
    for impl in Impl:
        assert MultiHeadActiveAttention(8, 2, impl=impl).impl == impl
