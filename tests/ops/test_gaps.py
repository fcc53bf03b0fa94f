"""Filling the gaps of windows, beside numpy."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsattn.ops.gaps import fill_gaps


@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 12),
    channels=st.integers(1, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**20),
)
def test_gaps_are_filled_as_numpy_interpolates(
    batch: int, steps: int, channels: int, share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch, steps, channels, dtype=torch.float64)
    observed = torch.rand(batch, steps, channels) < share
    filled = fill_gaps(torch.where(observed, x, 99.0), observed)
    assert torch.equal(filled[observed], x[observed])
    for b in range(batch):
        for c in range(channels):
            seen = observed[b, :, c].numpy()
            if not seen.any():
                assert (filled[b, :, c] == 0).all()
                continue
            expected = np.interp(np.arange(steps), np.flatnonzero(seen), x[b, seen, c].numpy())
            np.testing.assert_allclose(filled[b, :, c], expected, rtol=1e-12, atol=1e-12)


def test_a_gradient_flows_to_observed_steps_alone() -> None:
    x = torch.randn(2, 9, 2, dtype=torch.float64, requires_grad=True)
    observed = torch.rand(2, 9, 2) < 0.5
    observed[0, 0] = True
    fill_gaps(x, observed).square().sum().backward()
    assert x.grad is not None
    assert (x.grad[~observed] == 0).all()
    assert torch.autograd.gradcheck(lambda x: fill_gaps(x, observed), (x,))
