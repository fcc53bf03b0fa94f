"""Networks with the compiled kernels and without: the same mathematics, step after step."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.calls import Calls
from tsattn.interop.published import from_state_dict
from tsattn.models import EncoderDecoderTransformer, PatchTST
from tsattn.nn import token_norm
from tsattn.nn.norm import TokenBatchNorm
from tsattn.ops import build

PATCHTST = {"d_model": 16, "num_heads": 4, "d_ff": 32, "value_activation": "tanh"}
ILLNESS = {
    "d_model": 16, "num_heads": 4, "d_ff": 128, "num_layers": 3, "patch_length": 24, "stride": 2,
    "value_activation": "gelu",
}  # fmt: skip
NARROW = {"d_model": 32, "num_heads": 4, "d_ff": 64, "value_activation": "silu"}


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not build.is_ready():
        pytest.skip(build.status().reason)


def losses(
    network: nn.Module, context: int, steps: int, horizon: int = 12, channels: int = 3
) -> list[float]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    batches = [
        (draw(8, context, channels).cumsum(1), draw(8, context, 4), draw(8, horizon, 4))
        for _ in "ab"
    ]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    seen: list[float] = []
    for step in range(steps):
        x, marks, future = batches[step % 2]
        loss = (network(x, marks, future).mean - x[:, -horizon:].roll(1, 0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize(
    ("network", "options", "sizes"),
    [
        (PatchTST, PATCHTST, (3, 48, 12)),
        (PatchTST, ILLNESS, (7, 104, 36)),
        (EncoderDecoderTransformer, NARROW, (3, 48, 12)),
        (EncoderDecoderTransformer, NARROW | {"value_activation": torch.sin}, (3, 48, 12)),
    ],
    ids=["PatchTST", "PatchTST of Illness", "Transformer", "Transformer with a callable"],
)
def test_fifty_steps_through_the_reference_and_through_the_kernels_agree(
    network: type[nn.Module],
    options: dict[str, Any],
    sizes: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channels, context, horizon = sizes
    options = options | {"dropout": 0.0}
    torch.manual_seed(5)
    fused_network = network(*sizes, **options, attention_impl="cpu")
    fused = losses(fused_network, context, 50, horizon, channels)
    monkeypatch.setattr(build, "is_ready", lambda: False)
    torch.manual_seed(5)
    plain_network = network(*sizes, **options, attention_impl="reference")
    plain = losses(plain_network, context, 50, horizon, channels)
    assert plain[-1] < 0.9 * plain[0]
    assert fused == pytest.approx(plain, rel=1e-4)
    assert fused != plain  # else the kernels had no part in it


def test_every_dropout_of_every_layer_and_step_draws_another_mask() -> None:
    steps, layers = 3, 2
    network = PatchTST(3, 48, 12, **NARROW, num_layers=layers, dropout=0.2)
    with Calls() as calls:
        losses(network, 48, steps)
    # one of the tokens; in a layer those of the attention's branch, the hidden units and the branch
    assert len(calls.seeds) == steps * (1 + layers * 3)


def test_the_transformer_draws_another_mask_for_every_attention_too() -> None:
    steps = 2
    network = EncoderDecoderTransformer(
        3, 48, 12, **NARROW, encoder_layers=2, decoder_layers=1, dropout=0.2
    )
    with Calls() as calls:
        losses(network, 48, steps)
    # both embeddings; a layer drops weights and branch of every attention, hidden units and branch
    assert len(calls.seeds) == steps * (2 + 2 * 4 + 6)


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["patchtst_illness", "patchtst_etth1_tanh", "transformer"])
def test_a_network_of_published_weights_runs_through_the_kernels_as_a_plain_module(
    name: str, precision: str, golden: Path
) -> None:
    with safe_open(golden / f"{name}.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    state = {key[6:]: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    inputs = [tensors[f"input.{part}"] for part in ("x", "x_mark", "future_mark")
              if f"input.{part}" in tensors]  # fmt: skip
    network = from_state_dict(state, config | {"dropout": 0.2}).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    target = torch.randn_like(tensors["eval.output"])
    seen: list[float] = []
    with Calls() as calls:
        for _ in range(12):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = (network(*inputs).mean.float() - target).square().mean()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    assert seen[-1] < seen[0]
    own = " ".join(called for called in calls.names if called.startswith("tsattn::"))
    assert re.search(r"attention\w*_forward", own)
    assert re.search(r"attention\w*_backward", own)
    assert "dropout" in own
    assert "norm" in own or name == "transformer"
    torchs = ("softmax", "bernoulli", "native_dropout", "scaled_dot_product", "gelu", "baddbmm")
    assert [c for c in calls.names if c.startswith("aten::") and any(t in c for t in torchs)] == []
