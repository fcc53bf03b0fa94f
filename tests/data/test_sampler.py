import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from tsattn.data import WindowSampler
from tsattn.errors import ConfigError


def replicas_of(num_windows, batch_size, replicas, **options) -> list[list[list[int]]]:
    found = []
    for rank in range(replicas):
        sampler = WindowSampler(
            num_windows, batch_size, num_replicas=replicas, rank=rank, **options
        )
        batches = [batch.tolist() for batch in sampler]
        assert len(batches) == len(sampler)
        found.append(batches)
    return found


windows = st.integers(0, 200)
batch_sizes = st.integers(1, 40)
replica_counts = st.integers(1, 5)


@given(num_windows=windows, batch_size=batch_sizes, replicas=replica_counts)
def test_evaluation_neither_drops_nor_repeats_a_window(num_windows, batch_size, replicas) -> None:
    found = replicas_of(num_windows, batch_size, replicas)
    seen = [index for batches in found for batch in batches for index in batch]
    assert sorted(seen) == list(range(num_windows))
    assert all(0 < len(batch) <= batch_size for batches in found for batch in batches)


@given(num_windows=windows, batch_size=st.integers(2, 40), replicas=replica_counts)
def test_evaluation_gives_replicas_equally_many_batches(num_windows, batch_size, replicas) -> None:
    assume(num_windows >= replicas)
    assert len({len(batches) for batches in replicas_of(num_windows, batch_size, replicas)}) == 1


@given(
    num_windows=st.integers(1, 200),
    batch_size=batch_sizes,
    replicas=replica_counts,
    seed=st.integers(0, 10_000),
)
def test_training_gives_every_replica_equally_many_full_batches(
    num_windows, batch_size, replicas, seed
) -> None:
    assume(num_windows >= replicas)
    found = replicas_of(num_windows, batch_size, replicas, shuffle=True, drop_last=True, seed=seed)
    rounds = max(1, num_windows // (batch_size * replicas))
    assert [len(batches) for batches in found] == [rounds] * replicas
    sizes = {len(batch) for batches in found for batch in batches}
    assert len(sizes) == 1
    seen = [index for batches in found for batch in batches for index in batch]
    assert len(seen) == len(set(seen))
    if num_windows >= batch_size * replicas:
        assert sizes == {batch_size}
    else:
        assert num_windows - len(seen) < replicas


@pytest.mark.parametrize(
    ("num_windows", "batch_size", "steps"),
    [(8113, 128, 63), (34033, 128, 265), (36360, 128, 284), (11753, 24, 489), (537, 16, 33)],
)
def test_steps_per_epoch_are_those_of_the_protocol(num_windows, batch_size, steps) -> None:
    assert len(WindowSampler(num_windows, batch_size, shuffle=True, drop_last=True)) == steps


def test_fewer_windows_than_a_batch_make_one_batch_of_all() -> None:
    (batch,) = WindowSampler(5, 128, shuffle=True, drop_last=True)
    assert sorted(batch.tolist()) == [0, 1, 2, 3, 4]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = WindowSampler(100, 7, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        torch.randn(3)
        return torch.cat(list(sampler)).tolist()

    first = order(1, 2)
    torch.manual_seed(99)
    assert order(1, 2) == first
    assert len({tuple(order(*pair)) for pair in [(1, 2), (2, 1), (1, 3), (2, 2), (0, 0)]}) == 5


def test_drawing_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(WindowSampler(100, 7, shuffle=True, seed=1))
    assert torch.rand(1) == expected


def test_evaluation_on_one_replica_is_in_time_order() -> None:
    batches = [batch.tolist() for batch in WindowSampler(7, 3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_it_is_a_distributed_sampler_so_that_trainers_leave_it_alone() -> None:
    assert isinstance(WindowSampler(7, 3), DistributedSampler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 2, "num_replicas": 2, "rank": 2}, "rank 2 is not one of 2 replicas"),
        (
            {"batch_size": 2, "num_replicas": 9, "drop_last": True},
            "7 windows cannot be shared by 9",
        ),
        ({"batch_size": 1, "num_replicas": 2, "shuffle": True}, "different numbers of batches"),
    ],
)
def test_impossible_settings_raise_with_the_numbers(options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WindowSampler(7, **options)
