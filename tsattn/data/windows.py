"""Sliding windows gathered in batches from one tensor, and the order in which they are drawn."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tsattn.data.covariates import RowCovariates
from tsattn.errors import ConfigError
from tsattn.tensors import Context, ContextMarks, Covariates, Horizon, HorizonMarks, Index


class WindowBatch(NamedTuple):
    """A batch of windows.

    Attributes:
        past_BTC: Context rows, standardised.
        future_BHC: Horizon rows, standardised: what is to be forecast.
        past_marks_BTM: Calendar features of the context rows.
        future_marks_BHM: Calendar features of the horizon rows.
        index_B: Index of every window within its `Windows`.
        covariates: What else is known; None where nothing is.
    """

    past_BTC: Context
    future_BHC: Horizon
    past_marks_BTM: ContextMarks
    future_marks_BHM: HorizonMarks
    index_B: Index
    covariates: Covariates | None = None

    @property
    def extras(self) -> dict[str, Any]:
        """What a network takes by keyword, where there is any."""
        return {} if self.covariates is None else {"covariates": self.covariates}


class Windows(Dataset[WindowBatch]):
    """All windows of one part of the data, gathered on demand.

    Rows of all series stand one after the other in one tensor, which the three parts share. A
    batch is one indexed read of overlapping strided views; no window is ever copied beforehand.

    Args:
        values_RC: float32 rows of all series, standardised.
        marks_RM: float32 calendar features of the same rows.
        starts_W: Row at which every window's context begins.
        series_W: Series that every window belongs to.
        context: Context rows of a window.
        horizon: Horizon rows of a window.
        covariates: Covariates of the same rows, where there are any.

    Example:
        >>> rows = torch.arange(10.0).unsqueeze(1)
        >>> starts = torch.arange(6)
        >>> windows = Windows(rows, rows[:, :0], starts, torch.zeros_like(starts), 3, 2)
        >>> windows[[0, 5]].future_BHC.squeeze(-1).tolist()
        [[3.0, 4.0], [8.0, 9.0]]
    """

    def __init__(
        self,
        values_RC: Float[Tensor, "R C"],
        marks_RM: Float[Tensor, "R M"],
        starts_W: Int[Tensor, " W"],
        series_W: Int[Tensor, " W"],
        context: int,
        horizon: int,
        covariates: RowCovariates | None = None,
    ) -> None:
        self.covariates = covariates
        self.values_RC = values_RC.contiguous()
        self.marks_RM = marks_RM.contiguous()
        self.starts_W = starts_W
        self.series_W = series_W
        self.context = context
        self.horizon = horizon
        last = len(values_RC) - context - horizon
        if len(starts_W) and not 0 <= int(starts_W.min()) <= int(starts_W.max()) <= last:
            raise IndexError(
                f"windows start at rows {int(starts_W.min())} to {int(starts_W.max())}, but "
                f"{len(values_RC)} rows have room for starts 0 to {last}"
            )

    def __len__(self) -> int:
        return len(self.starts_W)

    def __getitem__(self, indices: int | slice | Sequence[int] | Tensor) -> WindowBatch:
        """Gather windows.

        Args:
            indices: Which windows; a single number gives a batch of one.
        """
        index_B = self._index(indices)
        starts_B = self.starts_W.index_select(0, index_B)
        values_BLC = self._gather(self.values_RC, starts_B)
        marks_BLM = self._gather(self.marks_RM, starts_B)
        return WindowBatch(
            past_BTC=values_BLC[:, : self.context],
            future_BHC=values_BLC[:, self.context :],
            past_marks_BTM=marks_BLM[:, : self.context],
            future_marks_BHM=marks_BLM[:, self.context :],
            index_B=index_B,
            covariates=self._covariates(starts_B, index_B),
        )

    def _index(self, indices: int | slice | Sequence[int] | Tensor) -> Tensor:
        if isinstance(indices, slice):
            return torch.arange(*indices.indices(len(self)))
        index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        # negative numbers count from the end, as everywhere in Python
        return torch.where(index < 0, index + len(self), index)

    def _covariates(self, starts_B: Tensor, index_B: Tensor) -> Covariates | None:
        if self.covariates is None:
            return None
        past_BLO = self._gather(self.covariates.past_RO, starts_B)
        return Covariates(
            known_BLG=self._gather(self.covariates.known_RG, starts_B),
            past_BTO=past_BLO[:, : self.context],
            static_BA=self.covariates.static_SA.index_select(0, self.series_W[index_B]),
        )

    def _gather(self, rows_RF: Tensor, starts_B: Tensor) -> Tensor:
        num_rows, width = rows_RF.shape
        length = self.context + self.horizon
        if not len(starts_B) or not width:
            return rows_RF.new_empty(len(starts_B), length, width)
        overlapping = rows_RF.as_strided((num_rows - length + 1, length, width), (width, width, 1))
        return overlapping.index_select(0, starts_B)


class WindowSampler(DistributedSampler[Tensor]):
    """Yields the window indices of one batch after the other.

    The order depends on ``(seed, epoch)`` alone, so a resumed run sees what an uninterrupted one
    would. With several replicas each window goes to exactly one of them; nothing is repeated to
    fill up.

    With ``drop_last`` every batch of every replica is full and all replicas have equally many.
    Should there be fewer windows than one full round of batches, one smaller batch per replica is
    made of all of them, so an epoch never is empty. Without it no window is left out, and replicas
    have equally many batches wherever the numbers allow it.

    Args:
        num_windows: Windows to draw from.
        batch_size: Windows of a batch, on one replica.
        shuffle: Whether the order is random.
        seed: Seed of the order.
        drop_last: Whether windows beyond the last full batch are left out.
        num_replicas: Processes that share the windows.
        rank: This process's number, from 0.

    Raises:
        ConfigError: An argument is out of range, or replicas could not get equally many batches in
            training.
    """

    def __init__(
        self,
        num_windows: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} is too small; expected at least 1")
        if not 0 <= rank < num_replicas:
            raise ConfigError(f"rank {rank} is not one of {num_replicas} replicas")
        if drop_last and 0 < num_windows < num_replicas:
            raise ConfigError(
                f"{num_windows} windows cannot be shared by {num_replicas} replicas; use fewer "
                "devices"
            )
        super().__init__(
            range(num_windows),  # pyright: ignore[reportArgumentType]
            num_replicas=num_replicas,
            rank=rank,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self.num_windows = num_windows
        self.batch_size = batch_size
        if shuffle and len({self._num_batches(replica) for replica in range(num_replicas)}) > 1:
            raise ConfigError(
                f"{num_windows} windows in batches of {batch_size} give {num_replicas} replicas "
                "different numbers of batches, and training would wait forever; drop the last batch"
            )

    def __len__(self) -> int:
        return self._num_batches(self.rank)

    def __iter__(self) -> Iterator[Tensor]:
        order = self._order()
        if self.drop_last:
            kept = self._full_rounds() * self.batch_size * self.num_replicas
            if not kept:
                kept = self.num_windows - self.num_windows % self.num_replicas
            order = order[:kept]
        mine = order[self.rank :: self.num_replicas]
        return iter(mine.split(self._batch_sizes(len(mine), self._num_batches(self.rank))))

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.num_windows)
        # seed and epoch are mixed, so that seed 1 epoch 2 and seed 2 epoch 1 differ
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return torch.randperm(self.num_windows, generator=generator)

    def _full_rounds(self) -> int:
        return self.num_windows // (self.batch_size * self.num_replicas)

    def _num_batches(self, replica: int) -> int:
        if self.num_windows == 0:
            return 0
        if self.drop_last:
            return max(1, self._full_rounds())
        mine = len(range(replica, self.num_windows, self.num_replicas))
        most = math.ceil(len(range(0, self.num_windows, self.num_replicas)) / self.batch_size)
        return min(most, mine)

    def _batch_sizes(self, num_mine: int, num_batches: int) -> list[int]:
        """Fill batches from the front, but leave at least one window for each that follows."""
        sizes: list[int] = []
        for later in range(num_batches - 1, -1, -1):
            sizes.append(min(self.batch_size, num_mine - sum(sizes) - later))
        return sizes


def loader(windows: Windows, sampler: WindowSampler) -> DataLoader[WindowBatch]:
    """Return a loader that asks ``windows`` for one whole batch at a time, in this process."""
    return DataLoader(windows, sampler=sampler, batch_size=None)
