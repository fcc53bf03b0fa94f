"""Rows that windows forecast, and whether anything in them was observed."""

import torch
from jaxtyping import Bool
from torch import Tensor

from tsattn.data.windows import Windows
from tsattn.errors import DataError


def target_rows(windows: Windows) -> Bool[Tensor, " R"]:
    """Return which rows lie in the horizon of a window."""
    first_W = windows.starts_W + windows.context
    opened_R = torch.zeros(len(windows.values_RC) + 1, dtype=torch.int64)
    once_W = torch.ones_like(first_W)
    opened_R.index_add_(0, first_W, once_W)
    opened_R.index_add_(0, first_W + windows.horizon, -once_W)
    return opened_R.cumsum(0)[:-1] > 0


def require_targets(windows: Windows, label: str, name: str) -> None:
    """Refuse a part in which no value was observed that a window forecasts.

    Args:
        windows: windows of the part; none are none to refuse.
        label: what the part is called.
        name: what the data are called.

    Raises:
        DataError: windows forecast values, and all of them are missing.
    """
    if windows.observed_RC is None or not len(windows):
        return
    if not windows.observed_RC[target_rows(windows)].any():
        raise DataError(
            f"{name}: all values that windows of the {label} part forecast are missing, so there "
            "is nothing to fit or score; move --data.borders, or bring more rows"
        )
