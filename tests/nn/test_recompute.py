"""Layers that are recomputed in the backward pass: the same training, in less memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsattn.models import PatchTST
from tsattn.nn import EncoderLayer, FeedForward, MultiHeadActiveAttention, recompute, token_norm
from tsattn.nn.moe import LinearGate, MoE
from tsattn.nn.recompute import Made, recomputed
from tsattn.nn.slices import feed_in_slices
from tsattn.ops import dropout, plain_torch

SMALL: dict[str, Any] = {"d_model": 16, "num_heads": 4, "d_ff": 32, "value_activation": "tanh"}


class Trained:
    """Two training passes: forecasts, gradients, buffers, and the random stream afterwards."""

    def __init__(self, *, recompute: bool, dtype: torch.dtype = torch.float32, **options: Any):
        torch.manual_seed(3)
        narrow = options.pop("narrow", False)
        network = PatchTST(3, 48, 12, recompute=recompute, **SMALL | options).to(dtype)
        x, y = torch.randn(5, 48, 3, dtype=dtype).cumsum(1), torch.randn(5, 12, 3, dtype=dtype)
        self.seen: list[Tensor] = []
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                forecast = network(x).mean
            (forecast.to(dtype) - y).square().mean().backward()
            self.seen.append(forecast.detach())
        self.gradients = {name: p.grad for name, p in network.named_parameters()}
        self.buffers = dict(network.named_buffers())
        self.next = torch.rand(3)


@contextmanager
def slices_of(tokens: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recompute, "SLICE_TOKENS", tokens)
        yield


OPTIONS: list[dict[str, Any]] = [
    {},
    {"prenorm": True},
    {"norm": "layer"},
    {"residual_scores": False},
    {"num_layers": 1},
    {"narrow": True},
    {"narrow": True, "value_activation": "silu"},
    {"attention_impl": "reference"},
    {"attention_impl": "sdpa", "narrow": True},
    {"value_activation": torch.sin},
    {"value_activation": nn.PReLU()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options) or "usual")
def test_recomputed_training_is_the_same_bit_for_bit(options: dict[str, Any]) -> None:
    kept = Trained(recompute=False, dropout=0.3, **options)
    again = Trained(recompute=True, dropout=0.3, **options)
    assert all(map(torch.equal, again.seen, kept.seen))
    for name, gradient in kept.gradients.items():
        found = again.gradients[name]
        assert gradient is not None
        assert found is not None
        assert torch.equal(found, gradient), name
    for name, buffer in kept.buffers.items():
        assert torch.equal(again.buffers[name], buffer), name
    assert torch.equal(again.next, kept.next)


@pytest.mark.parametrize(
    "options",
    OPTIONS[:5] + OPTIONS[7:8] + OPTIONS[9:],
    ids=lambda options: " ".join(options) or "usual",
)
def test_slices_change_rounding_alone(options: dict[str, Any]) -> None:
    settings = {"dropout": 0.0, "dtype": torch.float64, **options}
    kept = Trained(recompute=False, **settings)
    with slices_of(13):  # a few sequences each, and a rest
        again = Trained(recompute=True, **settings)
    torch.testing.assert_close(again.seen, kept.seen, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(again.gradients, kept.gradients, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(again.buffers, kept.buffers, rtol=1e-10, atol=1e-12)


def test_compiled_kernels_agree_in_slices() -> None:
    kept = Trained(recompute=False, dropout=0.0)
    with slices_of(13):
        again = Trained(recompute=True, dropout=0.0)
    torch.testing.assert_close(again.seen, kept.seen, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.gradients, kept.gradients, rtol=1e-4, atol=1e-5)


def test_every_slice_meets_the_same_mask_in_both_passes() -> None:
    x = torch.ones(6, 5, 4, requires_grad=True)
    with slices_of(10):
        output = recomputed(lambda x, link: Made(dropout(x, 0.5), None), (), x).output
    torch.rand(7)  # the stream moves on between the passes
    (output.sum()).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, output.detach())
    assert not torch.equal(x.grad[:2], x.grad[2:4])  # and each a mask of its own


def kept_mib(network: PatchTST, x: Tensor) -> float:
    """Return the memory of all different tensors that the backward pass will need."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)  # so that no other tensor takes its place
        return tensor

    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x)
    return sum(kept.values()) / 2**20


def test_little_is_kept_beside_the_tokens_between_branches() -> None:
    x = torch.randn(32, 336, 7)
    options: dict[str, Any] = SMALL | {"d_model": 64, "d_ff": 128}
    tokens_mib = 32 * 7 * 42 * 64 * 4 / 2**20
    kept = kept_mib(PatchTST(7, 336, 24, **options), x)
    again = kept_mib(PatchTST(7, 336, 24, **options, recompute=True), x)
    # the first tokens, four tensors a layer (two of them sums that batch norm keeps), features
    assert again < (1 + 3 * 4 + 1 + 1.5) * tokens_mib
    assert again < 0.6 * kept


def test_evaluation_is_the_same() -> None:
    torch.manual_seed(3)
    network, x = PatchTST(3, 48, 12, **SMALL, recompute=True).eval(), torch.randn(5, 48, 3)
    plain = PatchTST(3, 48, 12, **SMALL).eval()
    plain.load_state_dict(network.state_dict())
    with torch.inference_mode(), slices_of(13):
        torch.testing.assert_close(network(x).mean, plain(x).mean)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_forward_pass_is_that_of_both(training: bool) -> None:
    gradients: list[list[Tensor]] = []
    for again in (False, True):
        torch.manual_seed(3)
        network = PatchTST(3, 48, 12, recompute=again, dropout=0.3, **SMALL).train(training)
        network.get_submodule("layers.1.feedforward").train(not training)
        loss = network(torch.randn(5, 48, 3)).mean.square().mean()
        network.train(not training)
        loss.backward()
        assert all(module.training is not training for module in network.modules())
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(map(torch.equal, *gradients))


def test_what_is_frozen_gets_no_gradient() -> None:
    feedforward = FeedForward(4, 8)
    feedforward.expand.requires_grad_(False)
    x = torch.randn(6, 5, 4, requires_grad=True)
    with slices_of(10):
        feed_in_slices(feedforward, x).sum().backward()
    found = x.grad
    assert feedforward.expand.weight.grad is None
    x.grad, weight = None, feedforward.contract.weight
    again, weight.grad = weight.grad, None
    feedforward(x).sum().backward()
    torch.testing.assert_close((found, again), (x.grad, weight.grad))


def test_layers_that_add_up_scores_all_recompute_or_none() -> None:
    def layer(recompute: bool) -> EncoderLayer:
        return EncoderLayer(
            MultiHeadActiveAttention(8, 2),
            FeedForward(8, 16),
            token_norm("layer", 8),
            token_norm("layer", 8),
            keep_scores=True,
            recompute=recompute,
        )

    x = torch.randn(2, 5, 8)
    for first, second in ((True, False), (False, True)):
        tokens, factors, _ = layer(first)(x)
        with pytest.raises(ValueError, match="must all recompute, or none"):
            layer(second)(tokens, factors)


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(2, 5, 4, requires_grad=True)
    output = recomputed(lambda x, link: Made(F.gelu(x), None), (), x).output
    (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_mixture_is_kept_whole_where_layers_recompute() -> None:
    """What it does with a token depends on the batch, and its losses are those of all of it."""

    def network(recompute: bool) -> PatchTST:
        torch.manual_seed(0)
        mixture = partial(MoE, gate=LinearGate, num_experts=4, top_k=2, d_ff=8)
        return PatchTST(
            3, 24, 7, patch_length=4, stride=2, d_model=8, num_heads=2, num_layers=2,
            feedforward=mixture, recompute=recompute,
        )  # fmt: skip

    x = torch.randn(4, 24, 3)
    usual, recomputed = network(False)(x), network(True)(x)
    torch.testing.assert_close(recomputed.mean, usual.mean)
    assert recomputed.losses.keys() == usual.losses.keys()


def test_the_kernels_of_the_forward_pass_are_those_of_both() -> None:
    def gradient(*, inside: bool) -> Tensor:
        torch.manual_seed(0)
        part, x = FeedForward(16, 32, 0.5), torch.randn(4, 6, 16, requires_grad=True)
        with plain_torch():
            loss = feed_in_slices(part, x).square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert x.grad is not None
        return x.grad

    assert torch.equal(gradient(inside=True), gradient(inside=False))
