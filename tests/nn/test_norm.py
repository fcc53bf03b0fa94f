import pytest
import torch
from torch import Tensor, nn

from tsattn.nn import RevIN, token_norm


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64) * 3 + 7


def with_affine(subtract_last: bool = False) -> RevIN:
    revin = RevIN(4, affine=True, subtract_last=subtract_last).double()
    assert revin.weight is not None
    assert revin.bias is not None
    nn.init.uniform_(revin.weight, 0.5, 2.0)
    nn.init.uniform_(revin.bias, -1.0, 1.0)
    return revin


def test_every_window_and_channel_gets_mean_zero_and_population_variance_one() -> None:
    x, _ = RevIN(4).normalise(numbers(5, 30, 4))
    torch.testing.assert_close(x.mean(1), torch.zeros(5, 4).double())
    torch.testing.assert_close(x.var(1, correction=0), torch.ones(5, 4).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("subtract_last", [False, True])
def test_the_formula_is_that_of_the_published_code(subtract_last: bool) -> None:
    revin, x, y = with_affine(subtract_last), numbers(5, 30, 4), numbers(5, 6, 4)
    normal, statistics = revin.normalise(x)
    restored = revin.restore(y, statistics)
    for window in range(5):
        for channel in range(4):
            column = x[window, :, channel]
            mean = column.sum() / 30
            spread = (((column - mean) ** 2).sum() / 30 + 1e-5).sqrt()
            level = column[-1] if subtract_last else mean
            w, b = revin.weight[channel], revin.bias[channel]  # pyright: ignore
            torch.testing.assert_close(
                normal[window, :, channel], (column - level) / spread * w + b
            )
            expected = (y[window, :, channel] - b) / (w + 1e-10) * spread + level
            torch.testing.assert_close(restored[window, :, channel], expected)


@pytest.mark.parametrize("revin", [RevIN(4), RevIN(4, subtract_last=True), with_affine()])
def test_restoring_undoes_normalising(revin: RevIN) -> None:
    x = numbers(5, 30, 4)
    normal, statistics = revin.normalise(x)
    torch.testing.assert_close(revin.double().restore(normal, statistics), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_gradient_flows_through_the_statistics(dtype: torch.dtype) -> None:
    x = numbers(5, 30, 4).to(dtype).requires_grad_()
    normal, statistics = RevIN(4).normalise(x)
    above = torch.randn_like(normal)
    (gradient,) = torch.autograd.grad(normal, x, above)
    torch.testing.assert_close(gradient, above / statistics.spread_B1C)


def test_a_constant_window_becomes_zeros() -> None:
    normal, statistics = RevIN(4).normalise(torch.full((2, 9, 4), 5.0))
    assert (normal == 0).all()
    torch.testing.assert_close(statistics.spread_B1C, torch.full((2, 1, 4), 1e-5).sqrt())


def test_statistics_of_a_half_precision_window_are_taken_in_float32() -> None:
    x = (torch.arange(4096.0)[None, :, None] % 7 + 1).bfloat16()
    _, statistics = RevIN(1).normalise(x)
    exact = x.double()
    assert statistics.level_B1C.item() == pytest.approx(exact.mean().item(), rel=1e-6)
    assert statistics.spread_B1C.item() == pytest.approx(exact.std(correction=0).item(), rel=1e-5)


def test_without_affine_there_is_nothing_to_learn() -> None:
    assert not list(RevIN(4).parameters())
    assert {n: p.tolist() for n, p in RevIN(2, affine=True).named_parameters()} == {
        "weight": [1, 1],
        "bias": [0, 0],
    }


def test_batch_norm_of_tokens_counts_all_tokens_of_the_batch() -> None:
    norm, x = token_norm("batch", 6).double(), numbers(5, 7, 6)
    mean, variance = x.mean((0, 1)), x.var((0, 1), correction=0)
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt())
    unbiased = x.var((0, 1), correction=1)
    state = norm.state_dict()
    torch.testing.assert_close(state["running_mean"], 0.1 * mean)
    torch.testing.assert_close(state["running_var"], 0.9 + 0.1 * unbiased)
    expected = (x - state["running_mean"]) / (state["running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(norm.eval()(x), expected)


def test_layer_norm_of_tokens_counts_the_features_of_each() -> None:
    x = numbers(5, 7, 6)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    expected = (x - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(token_norm("layer", 6).double()(x), expected)


@pytest.mark.unchecked
def test_an_unknown_norm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown norm 'group'; expected one of batch, layer"):
        token_norm("group", 8)  # pyright: ignore[reportArgumentType]
