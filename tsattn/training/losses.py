"""What training minimises."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tsattn.metrics import pinball

LossName = Literal["mse", "mae", "huber", "quantile"]


def make_loss(name: LossName, quantile: float = 0.5) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a forecast ``f`` against the truth ``y``, a mean over all entries.

    * ``mse``: ``(y - f)^2``
    * ``mae``: ``|y - f|``
    * ``huber``: ``(y - f)^2 / 2`` up to an error of 1, ``|y - f| - 1/2`` beyond
    * ``quantile``: ``max(q (y - f), (q - 1)(y - f))``, minimal at the quantile ``q``

    Args:
        name: one of the four.
        quantile: the quantile ``q`` in (0, 1), for ``quantile`` only.

    Raises:
        ValueError: another name, or a quantile outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be in (0, 1), got {quantile}")

    def of_one(forecast: Tensor, target: Tensor) -> Tensor:
        return pinball(forecast, target, quantile).mean()

    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": F.mse_loss,
        "mae": F.l1_loss,
        "huber": F.huber_loss,
        "quantile": of_one,
    }
    if name not in losses:
        raise ValueError(f"unknown loss {name!r}; expected one of {', '.join(losses)}")
    return losses[name]


def quantile_loss(quantiles_BHCQ: Tensor, target_BHC: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the pinball loss, a mean over all entries and levels.

    Args:
        quantiles_BHCQ: forecasts of the quantiles.
        target_BHC: the truth.
        levels: their levels ``q``.

    Source: Koenker and Bassett 1978; the mean over levels as in Wen et al. 2017 ("MQ-RNN").
    """
    levels_Q = quantiles_BHCQ.new_tensor(levels)
    return pinball(quantiles_BHCQ, target_BHC.unsqueeze(-1), levels_Q).mean()
