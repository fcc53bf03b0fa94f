"""Covariates beside a network that sees every channel as patches of its own."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsattn.nn.dropout import Dropout, drop_after_gelu
from tsattn.nn.embed import PatchEmbedding
from tsattn.nn.linear import Linear
from tsattn.tensors import Covariates, CovariateSizes


class Told(NamedTuple):
    """What covariates say, before any channel has seen it.

    Attributes:
        tokens_BPD: what is added to the tokens of every channel.
        steps_BHD: features of every step of the horizon; of width 0 where nothing is known ahead.
    """

    tokens_BPD: Tensor
    steps_BHD: Tensor

    def of(self, rows: Tensor) -> "Told":
        """Return what is said to some windows."""
        return Told(*(one.index_select(0, rows) for one in self))


class StepEncoder(nn.Module):
    """Turn the covariates around each step of the horizon into features of that step.

    ``f_h = A z_h + C drop(gelu(B z_h))``, z_h: the covariates of the last ``reach`` steps up to h,
    where they may still work, and of step h + 1, whose coming may be felt. What lies before the
    horizon is the end of the context; after its last step, that step is repeated.

    Args:
        covariates: number of covariates.
        reach: steps up to and with the step itself; at most one more than the context has.
        width: number of features.
        dropout: probability of dropping a hidden unit.

    Source: the residual block of Das et al. 2023, "TiDE", without its layer norm, so that a
    covariate's size is not lost.
    """

    def __init__(self, covariates: int, reach: int, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.reach = reach
        around = (reach + 1) * covariates
        self.skip = nn.Linear(around, width, bias=False)
        self.expand = Linear(around, width)
        self.contract = Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, known_BLG: Tensor, horizon: int) -> Tensor:
        """Return features [B, H, D] of the last ``horizon`` steps."""
        ahead = known_BLG[:, known_BLG.shape[1] - horizon - self.reach + 1 :]
        ahead = torch.cat([ahead, ahead[:, -1:]], dim=1)
        steps = ahead.unfold(1, self.reach + 1, 1).flatten(2)
        hidden = drop_after_gelu(self.dropout, self.expand(steps))
        return self.skip(steps) + self.contract(hidden)


class PatchCovariates(nn.Module):
    """Tell a network over patches what else is known, the same for every channel of a window.

    Into the tokens: ``token_cp += W z_p + S s``, z_p: the covariates known ahead and the past ones
    within patch p, s: the static ones. Into the forecast: ``y_ch += g_c . f_h / sqrt(D)``, f_h:
    what `StepEncoder` makes of the covariates known around step h, ``g_c = G mean_p token_cp + b``:
    how channel c answers to them, read from its own tokens after the encoder.

    Args:
        sizes: how many covariates there are of each kind.
        horizon: steps ahead.
        patch_length: steps of a patch, and how far back an answer looks.
        d_model: width D of tokens and features.
        dropout: of the hidden units of the step encoder.
        outputs: numbers that are forecast for each step; those of a step lie together.

    Source: docs/design/0014-covariates.md.
    """

    def __init__(
        self,
        sizes: CovariateSizes,
        horizon: int,
        patch_length: int,
        d_model: int,
        *,
        dropout: float = 0.0,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.outputs = outputs
        steps = patch_length * (sizes.known + sizes.past)
        self.patches = nn.Linear(steps, d_model, bias=False) if steps else None
        self.static = nn.Linear(sizes.static, d_model, bias=False) if sizes.static else None
        self.steps = (
            StepEncoder(sizes.known, patch_length, d_model, dropout=dropout)
            if sizes.known
            else None
        )
        self.answer = Linear(d_model, d_model * outputs) if sizes.known else None

    def forward(self, covariates: Covariates, embed: PatchEmbedding) -> Told:
        """Return what is added to the tokens, and features of the horizon's steps.

        Args:
            covariates: of a batch of windows.
            embed: cuts the windows into patches, and these covariates likewise.
        """
        known_BLG, past_BTO, static_BA = covariates
        tokens = known_BLG.new_zeros(len(known_BLG), embed.num_patches, embed.project.out_features)
        if self.patches is not None:
            beside = torch.cat([known_BLG[:, : past_BTO.shape[1]], past_BTO], dim=-1)
            tokens = tokens + self.patches(embed.cut(beside).transpose(1, 2).flatten(2))
        if self.static is not None:
            tokens = tokens + self.static(static_BA).unsqueeze(1)
        nothing = known_BLG.new_zeros(len(known_BLG), self.horizon, 0)
        return Told(tokens, nothing if self.steps is None else self.steps(known_BLG, self.horizon))

    def added_to(self, y_BCH: Tensor, tokens_BCPD: Tensor, told: Told) -> Tensor:
        """Return forecasts with each channel's answer to what is known ahead."""
        if self.answer is None:
            return y_BCH
        weights_BCD = self.answer(tokens_BCPD.mean(dim=2)).unflatten(-1, (self.outputs, -1))
        scale = 1 / math.sqrt(weights_BCD.shape[-1])
        answer = torch.einsum("bcod,bhd->bcho", weights_BCD * scale, told.steps_BHD)
        return y_BCH + answer.flatten(2)
