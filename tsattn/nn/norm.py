"""Normalisation: of a window over time (RevIN), and of tokens over batch or width."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from tsattn.nn.as_built import is_as_built
from tsattn.nn.dropout import drop_outside
from tsattn.ops import add_dropout, add_dropout_batch_norm, add_dropout_layer_norm
from tsattn.tensors import Context, Horizon, ObservedContext, Tokens

NormKind = Literal["batch", "layer"]


class WindowStatistics(NamedTuple):
    """Level and spread of every window and channel, [B, 1, C]; no gradient flows into them."""

    level_B1C: Tensor
    spread_B1C: Tensor


def window_mean(x_BTC: Context, observed_BTC: ObservedContext | None) -> Tensor:
    """Return the mean of every window's observed steps, [B, 1, C]; 0 where there are none.

    Windows that were observed throughout have the same mean, to the last bit, as without a mask,
    whatever else is in the batch.
    """
    if observed_BTC is None:
        return x_BTC.mean(dim=1, keepdim=True)
    seen = observed_BTC.sum(dim=1, keepdim=True)
    x_BTC = torch.where(observed_BTC, x_BTC, 0.0)
    some = x_BTC.sum(dim=1, keepdim=True) / seen.clamp_min(1)
    return torch.where(seen == x_BTC.shape[1], x_BTC.mean(dim=1, keepdim=True), some)


def last_value(x_BTC: Context, observed_BTC: ObservedContext | None) -> Tensor:
    """Return the last observed value of every window, [B, 1, C]; 0 where there is none."""
    if observed_BTC is None:
        return x_BTC[:, -1:]
    step_T1 = torch.arange(x_BTC.shape[1], device=x_BTC.device).unsqueeze(1)
    last = torch.where(observed_BTC, step_T1, -1).amax(dim=1, keepdim=True)
    return torch.where(last < 0, 0.0, x_BTC.gather(1, last.clamp_min(0)))


class RevIN(nn.Module):
    """Take the level and spread out of a window, and put them back into its forecast.

    ``normalise``: (x - level) / sqrt(var + eps), then ``* weight + bias`` where affine;
    ``restore`` undoes both. Var is the population variance about the mean.

    Args:
        channels: number of channels.
        affine: learn a weight and a bias per channel.
        subtract_last: the level is the window's last value instead of its mean; the spread stays
            that about the mean.

    Source: Kim et al. 2022, "Reversible instance normalization". Departure, as in the published
    PatchTST code: ``restore`` divides by weight + 1e-10.
    """

    eps = 1e-5
    restore_eps = 1e-10

    def __init__(self, channels: int, *, affine: bool = False, subtract_last: bool = False) -> None:
        super().__init__()
        self.subtract_last = subtract_last
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def normalise(
        self, x_BTC: Context, observed_BTC: ObservedContext | None = None
    ) -> tuple[Tensor, WindowStatistics]:
        """Return the normalised window and what was taken out of it.

        Args:
            x_BTC: windows.
            observed_BTC: which steps were observed, None for all. Level (with ``subtract_last`` the
                last observed value) and spread are those of the observed steps alone; the others
                come out as a step at the level would, 0 before weight and bias. Without any
                observed step, level and variance are 0.

        Returns:
            The normalised window and its statistics, in float32 at least.
        """
        history = x_BTC.detach().float() if x_BTC.dtype != torch.float64 else x_BTC.detach()
        mean = window_mean(history, observed_BTC)
        variance = window_mean((history - mean).square(), observed_BTC)  # var_mean takes longer
        level = last_value(history, observed_BTC) if self.subtract_last else mean
        statistics = WindowStatistics(level, torch.sqrt(variance + self.eps))
        x_BTC = (x_BTC - statistics.level_B1C) / statistics.spread_B1C
        if observed_BTC is not None:
            x_BTC = torch.where(observed_BTC, x_BTC, 0.0)
        if self.weight is not None and self.bias is not None:
            x_BTC = x_BTC * self.weight + self.bias
        return x_BTC, statistics

    def restore(self, y_BHC: Horizon, statistics: WindowStatistics) -> Tensor:
        """Put level and spread back into a forecast, in their precision if it is narrower."""
        if self.weight is not None and self.bias is not None:
            y_BHC = (y_BHC - self.bias) / (self.weight + self.restore_eps)
        return y_BHC * statistics.spread_B1C + statistics.level_B1C

    def restore_distances(self, gaps_BHCG: Tensor, statistics: WindowStatistics) -> Tensor:
        """Put the spread back into distances within a forecast, which are never negative.

        Where a channel's weight is negative, `restore` turns up into down; distances stay positive.
        """
        if self.weight is not None:
            gaps_BHCG = gaps_BHCG / (self.weight + self.restore_eps).abs().unsqueeze(-1)
        return gaps_BHCG * statistics.spread_B1C.unsqueeze(-1)


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of tokens [B, L, D]: each feature over batch and positions."""

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]
    running_var: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]
    num_batches_tracked: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]

    def forward(self, input: Tokens) -> Tensor:
        """Normalise every feature over all tokens of the batch."""
        return super().forward(input.flatten(0, 1)).view_as(input)

    def fixed_map(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift of every feature in evaluation, ``x * scale + shift``.

        For a norm that has weights and statistics.
        """
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    @property
    def follows_its_batches(self) -> bool:
        """Whether its statistics move on by ``momentum`` of the way at every batch in training."""
        return self.track_running_stats and self.momentum is not None

    def normalise_sum(self, residual: Tokens, branch: Tokens, p: float) -> Tensor:
        """Normalise ``residual + drop(branch)`` in one operation; dropout with probability p.

        For a norm that has weights and statistics, which follow its batches.
        """
        rows = residual.shape[0] * residual.shape[1]
        if not self.training or rows < 2:  # torch says why one row cannot be normalised
            return self(add_dropout(residual, branch, p))
        output, mean, variance = add_dropout_batch_norm(
            residual, branch, self.weight, self.bias, p=p, eps=self.eps
        )
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * (rows / (rows - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return output


def normalise(norm: nn.Module, x: Tokens) -> Tensor:
    """Return ``norm(x)`` of tokens [B, L, D]; torch's batch norms count over B and L, too.

    They take the second axis for the features. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` puts
    one of them in the place of every `TokenBatchNorm`.
    """
    if type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
        return norm(x.flatten(0, 1)).view_as(x)
    return norm(x)


def normalise_sum(
    norm: nn.Module, residual: Tokens, branch: Tokens, *dropouts: nn.Module
) -> Tensor:
    """Return ``norm(residual + drop(branch))``, in one operation where there is one for it.

    Args:
        norm: a normalisation of tokens.
        residual: tokens before the branch.
        branch: what the branch made of them.
        dropouts: drop features of the branch, one after the other.
    """
    branch, p = drop_outside(branch, *dropouts)
    if is_as_built(norm, TokenBatchNorm) and norm.follows_its_batches:
        return norm.normalise_sum(residual, branch, p)
    if is_as_built(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1:
        return add_dropout_layer_norm(residual, branch, norm.weight, norm.bias, p=p, eps=norm.eps)
    return normalise(norm, add_dropout(residual, branch, p))


def counts_over_batch(part: nn.Module) -> bool:
    """Say whether what becomes of a token depends on the others of its batch, by a batch norm.

    So it does in training, and always where there are no statistics of earlier batches.
    """
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    return any(norm.training or norm.running_mean is None for norm in norms)


def token_norm(kind: NormKind, d_model: int) -> nn.Module:
    """Build the normalisation of tokens [B, L, D]: ``batch`` or ``layer``.

    Raises:
        ValueError: another kind.
    """
    if kind == "batch":
        return TokenBatchNorm(d_model)
    if kind == "layer":
        return nn.LayerNorm(d_model)
    raise ValueError(f"unknown norm {kind!r}; expected one of batch, layer")
