"""Small files and panels for the tests of the data layer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsattn.data import Panel, Series

WriteCsv = Callable[..., Path]


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Write text or bytes to ``own.csv`` and return its path."""

    def write(content: str | bytes, name: str = "own.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def make_csv(write_csv: WriteCsv) -> WriteCsv:
    """Write a wide file with channels ``a`` (i + .25) and ``b`` (2 i), its looks to be chosen."""

    def make(
        rows: int = 30,
        *,
        freq: str = "h",
        start: str = "2020-03-04",
        date_format: str = "%Y-%m-%d %H:%M:%S",
        sep: str = ",",
        decimal: str = ".",
    ) -> Path:
        times = pd.date_range(start, periods=rows, freq=freq)
        lines = [sep.join(("date", "a", "b"))]
        for index, time in enumerate(times):
            number = f"{index}{decimal}25"
            lines.append(sep.join((time.strftime(date_format), number, str(2 * index))))
        return write_csv("\n".join(lines) + "\n")

    return make


@pytest.fixture
def make_panel() -> Callable[..., Panel]:
    """Build a panel of hourly series with the given lengths, of random numbers."""

    def make(*lengths: int, channels: int = 1, seed: int = 0) -> Panel:
        random = np.random.default_rng(seed)
        series = tuple(
            Series(
                id=f"s{index}",
                times=pd.date_range("2020-01-01", periods=length, freq="h"),
                values_RC=random.normal(10.0 * index, 1.0 + index, (length, channels)),
            )
            for index, length in enumerate(lengths)
        )
        return Panel(
            name="made",
            path=Path("made.csv"),
            sha256="0" * 64,
            channels=tuple(f"c{index}" for index in range(channels)),
            series=series,
            step=pd.Timedelta(hours=1),
            step_seconds=3600.0,
            layout="wide" if len(lengths) == 1 else "long",
            time_column="date",
        )

    return make
