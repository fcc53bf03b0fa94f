import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsattn.data import Windows, WindowSampler, loader


def make_windows(rows: int, context: int, horizon: int, channels: int = 2, marks: int = 3):
    values_RC = torch.arange(float(rows * channels)).view(rows, channels)
    marks_RM = -torch.arange(float(rows * marks)).view(rows, marks)
    starts_W = torch.arange(rows - context - horizon + 1)
    return Windows(values_RC, marks_RM, starts_W, torch.zeros_like(starts_W), context, horizon)


@given(
    context=st.integers(1, 9),
    horizon=st.integers(1, 9),
    extra=st.integers(0, 20),
    channels=st.integers(1, 4),
    marks=st.integers(0, 4),
    data=st.data(),
)
def test_a_batch_holds_exactly_the_rows_of_its_windows(
    context, horizon, extra, channels, marks, data
) -> None:
    windows = make_windows(context + horizon + extra, context, horizon, channels, marks)
    picks = data.draw(st.lists(st.integers(0, len(windows) - 1), max_size=12))
    batch = windows[picks]
    assert batch.past_BTC.shape == (len(picks), context, channels)
    assert batch.future_marks_BHM.shape == (len(picks), horizon, marks)
    assert batch.index_B.tolist() == picks
    for row, pick in enumerate(picks):
        begin, middle, end = pick, pick + context, pick + context + horizon
        assert torch.equal(batch.past_BTC[row], windows.values_RC[begin:middle])
        assert torch.equal(batch.future_BHC[row], windows.values_RC[middle:end])
        assert torch.equal(batch.past_marks_BTM[row], windows.marks_RM[begin:middle])
        assert torch.equal(batch.future_marks_BHM[row], windows.marks_RM[middle:end])


def test_lists_tensors_slices_and_single_numbers_address_windows() -> None:
    windows = make_windows(20, 3, 2)
    everything = windows[:]
    assert len(everything.index_B) == len(windows) == 16
    assert torch.equal(windows[torch.tensor([4, 2])].past_BTC, everything.past_BTC[[4, 2]])
    assert torch.equal(windows[5].past_BTC, everything.past_BTC[5:6])
    assert windows[-1].index_B.tolist() == [15]
    with pytest.raises(IndexError):
        windows[16]


def test_windows_beyond_the_rows_are_refused() -> None:
    rows = torch.zeros(10, 1)
    starts = torch.tensor([0, 7])
    with pytest.raises(IndexError, match=r"start at rows 0 to 7.*room for starts 0 to 6"):
        Windows(rows, rows, starts, starts, 3, 1)


def test_batches_own_their_memory_and_the_rows_stay_as_they_were() -> None:
    windows = make_windows(20, 3, 2)
    before = windows.values_RC.clone()
    windows[[0, 1]].past_BTC.fill_(-1)
    assert torch.equal(windows.values_RC, before)


def test_a_loader_gives_whole_batches_in_the_samplers_order() -> None:
    windows = make_windows(40, 3, 2)
    sampler = WindowSampler(len(windows), 8, shuffle=True, seed=3)
    batches = list(loader(windows, sampler))
    expected = list(sampler)
    assert len(batches) == len(loader(windows, sampler)) == len(sampler) == 5
    for batch, index_B in zip(batches, expected, strict=True):
        assert torch.equal(batch.index_B, index_B)
        assert batch.past_BTC.is_contiguous() or batch.past_BTC.stride(-1) == 1
