"""Where new data come from: a CSV file or a frame of pandas or polars; and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timezone
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tsattn.data.frames import LONG_COLUMNS, from_polars, is_polars, plain_frame
from tsattn.data.own import frame_table
from tsattn.data.panel import Layout
from tsattn.data.reading import Reading
from tsattn.data.table import Table, read_table
from tsattn.errors import DataError

Frame = Any
"""A pandas or a polars data frame, or the path of a CSV file."""


@dataclass(frozen=True, eq=False)
class Source:
    """A table and what its owner knows it by.

    Attributes:
        table: header and cells.
        reading: what the user has said about them.
        labels: the columns' own names, by position.
        library: whose frame it is, and whose frame the forecast becomes.
        index: whether the time is the frame's index (and the table's first column).
        period: the frequency of a `pandas.PeriodIndex`, else None.
        zone: the time zone in which it writes its timestamps, None where it names none.
    """

    table: Table
    reading: Reading
    labels: tuple[Any, ...]
    library: Literal["pandas", "polars"] = "pandas"
    index: bool = False
    period: Any = None
    zone: Any = None

    @property
    def layout(self) -> Layout:
        """``long`` where the columns unique_id, ds and y are there, else ``wide``."""
        long = set(LONG_COLUMNS) <= set(self.table.lowered)
        return self.reading.layout or ("long" if long else "wide")

    def frame(self, columns: Mapping[Any, Any]) -> Any:
        """Return columns as a frame of the same library; the first one is the time of an index."""
        if self.library == "polars":
            import polars as pl

            return pl.DataFrame({name: _for_polars(cells) for name, cells in columns.items()})
        if not self.index:
            return pd.DataFrame(columns)
        time, *names = columns
        index = pd.Index(columns[time])
        index = index if self.period is None else pd.DatetimeIndex(index).to_period(self.period)
        return pd.DataFrame({name: columns[name] for name in names}, index=index.rename(time))


def open_source(frame: Frame, reading: Reading) -> Source:
    """Take a frame or a file for a source.

    Args:
        frame: a pandas or polars frame, or the path of a CSV file.
        reading: how to read it where its content does not say so itself.

    Raises:
        DataError: it is neither, or cannot be read; the message says why.
    """
    if isinstance(frame, (str, Path)):
        path = Path(frame).expanduser()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what}; expected the path of a CSV file")
        table = read_table(path.read_bytes(), str(path), reading.delimiter)
        return Source(table, reading, table.columns)
    if isinstance(frame, pd.DataFrame):
        return _from_pandas(frame, reading)
    if is_polars(frame):
        return _from_polars(frame, reading)
    raise DataError(
        f"{type(frame).__name__} is no frame; expected a pandas or polars DataFrame, or the path "
        "of a CSV file"
    )


def _from_pandas(frame: pd.DataFrame, reading: Reading) -> Source:
    plain, index = plain_frame(frame)
    labels = (frame.index.name, *frame.columns) if index else tuple(plain.columns)
    period = frame.index.freq if index and isinstance(frame.index, pd.PeriodIndex) else None
    return Source(frame_table(plain), reading, labels, index=index, period=period)


def _from_polars(frame: Any, reading: Reading) -> Source:
    plain = from_polars(frame)
    return Source(frame_table(plain), reading, tuple(plain.columns), library="polars")


def _for_polars(cells: Any) -> Any:
    """Return a column for polars, timestamps with their time zone.

    Those with a UTC offset become text, as which they came: polars knows zones by their names.
    """
    import polars as pl

    if not isinstance(cells, pd.DatetimeIndex):
        return cells.to_numpy() if isinstance(cells, pd.Index) else cells
    if cells.tz is None:
        return cells.to_numpy()
    if isinstance(cells.tz, timezone) and cells.tz != UTC:
        return [one.isoformat(sep=" ") for one in cells]
    moments = pl.Series(cells.tz_convert("UTC").tz_localize(None).to_numpy())
    return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(str(cells.tz))
