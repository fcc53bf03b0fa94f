"""Windows with steps that nobody observed."""

import torch
from torch import Tensor

from tsattn.tensors import Context, ObservedContext


def fill_gaps(x_BTC: Context, observed_BTC: ObservedContext) -> Tensor:
    """Fill the gaps of every window and channel from its own observed steps.

    Between two observed steps the values lie on a straight line; before the first and after the
    last one they are that step's value. A channel without any observed step becomes 0.

    Args:
        x_BTC: windows; what they hold at steps that were not observed does not matter, as long as
            it is finite.
        observed_BTC: which steps were observed.

    Returns:
        Windows that equal ``x_BTC`` exactly wherever it was observed.
    """
    last = x_BTC.shape[1] - 1
    step_T1 = torch.arange(last + 1, device=x_BTC.device).unsqueeze(1)
    before = torch.where(observed_BTC, step_T1, -1).cummax(dim=1).values
    after = torch.where(observed_BTC, step_T1, last + 1).flip(1).cummin(dim=1).values.flip(1)
    low = torch.where(before < 0, after, before).clamp(0, last)
    high = torch.where(after > last, before, after).clamp(0, last)
    weight = (step_T1 - low).to(x_BTC.dtype) / (high - low).clamp_min(1)
    start, end = x_BTC.gather(1, low), x_BTC.gather(1, high)
    filled = start + weight * (end - start)
    filled = torch.where(observed_BTC.any(dim=1, keepdim=True), filled, 0.0)
    return torch.where(observed_BTC, x_BTC, filled)
