"""Networks with the compiled kernels and without: the same mathematics, step after step."""

from typing import Any

import pytest
import torch
from torch import nn

from tsattn.models import EncoderDecoderTransformer, PatchTST
from tsattn.nn import token_norm
from tsattn.nn.norm import TokenBatchNorm
from tsattn.ops import build

PATCHTST = {"d_model": 16, "num_heads": 4, "d_ff": 32, "value_activation": "tanh"}
NARROW = {"d_model": 32, "num_heads": 4, "d_ff": 64, "value_activation": "silu"}


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not build.is_ready():
        pytest.skip(build.status().reason)


def losses(network: nn.Module, context: int, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    batches = [(draw(8, context, 3).cumsum(1), draw(8, context, 4), draw(8, 12, 4)) for _ in "ab"]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    seen: list[float] = []
    for step in range(steps):
        x, marks, future = batches[step % 2]
        loss = (network(x, marks, future).mean - x[:, -12:].roll(1, 0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (PatchTST, PATCHTST | {"dropout": 0.0}),
        (EncoderDecoderTransformer, NARROW | {"dropout": 0.0}),
    ],
)
def test_thirty_steps_through_the_reference_and_through_the_kernels_agree(
    network: type[nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    fused = losses(network(3, 48, 12, **options, attention_impl="cpu"), 48, 30)
    monkeypatch.setattr(build, "is_ready", lambda: False)
    torch.manual_seed(5)
    plain = losses(network(3, 48, 12, **options, attention_impl="reference"), 48, 30)
    assert plain[-1] < 0.9 * plain[0]
    assert fused == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("network", [PatchTST, EncoderDecoderTransformer])
def test_training_with_dropout_is_decided_by_the_seed(network: type[nn.Module]) -> None:
    runs: list[list[float]] = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(losses(network(3, 48, 12, **NARROW, dropout=0.3), 48, 3))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_running_statistics_are_those_of_torchs_batch_norm() -> None:
    ours, theirs = token_norm("batch", 16), nn.BatchNorm1d(16)
    assert isinstance(ours, TokenBatchNorm)
    for _ in range(3):
        residual, branch = torch.randn(5, 7, 16) + 2, torch.randn(5, 7, 16)
        expected = theirs((residual + branch).flatten(0, 1)).view_as(residual)
        torch.testing.assert_close(ours.normalise_sum(residual, branch, 0.0), expected)
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    residual, branch = torch.randn(5, 7, 16), torch.randn(5, 7, 16)
    expected = theirs.eval()((residual + branch).flatten(0, 1)).view_as(residual)
    torch.testing.assert_close(ours.eval().normalise_sum(residual, branch, 0.0), expected)


@pytest.mark.parametrize("network", [PatchTST, EncoderDecoderTransformer])
def test_bfloat16_autocast_points_the_gradient_where_float32_does(network: type[nn.Module]) -> None:
    torch.manual_seed(5)
    built = network(3, 48, 12, **NARROW, dropout=0.0)
    inputs = torch.randn(8, 48, 3), torch.randn(8, 48, 4), torch.randn(8, 12, 4)
    target = torch.randn(8, 12, 3)
    gradients: list[torch.Tensor] = []
    for narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            mean = built(*inputs).mean
        loss = (mean.float() - target).square().mean()
        parameters = list(built.parameters())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
