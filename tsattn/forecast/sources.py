"""Where new data come from: a CSV file or a frame of pandas or polars; and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tsattn.data.frames import LONG_COLUMNS, from_polars, is_polars, plain_frame
from tsattn.data.own import frame_table
from tsattn.data.panel import Layout
from tsattn.data.reading import Reading
from tsattn.data.table import Table, read_table
from tsattn.errors import DataError
from tsattn.forecast.dtypes import as_in_pandas, as_in_polars

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
        dtypes: the types of a frame's columns, by their own names; none of a file.
        zone: the time zone in which it writes its timestamps, None where it names none.
    """

    table: Table
    reading: Reading
    labels: tuple[Any, ...]
    library: Literal["pandas", "polars"] = "pandas"
    index: bool = False
    dtypes: Mapping[Any, Any] = field(default_factory=dict)
    zone: Any = None

    @property
    def layout(self) -> Layout:
        """``long`` where the columns unique_id, ds and y are there, else ``wide``."""
        long = set(LONG_COLUMNS) <= set(self.table.lowered)
        return self.reading.layout or ("long" if long else "wide")

    def frame(self, columns: Mapping[Any, Any]) -> Any:
        """Return columns as a frame of the same library.

        Those that are an index (identifiers, times) get the type that they have in the source,
        where that loses nothing.

        Args:
            columns: by their names; where the source's index is the time, that is the first one.
        """
        like = as_in_polars if self.library == "polars" else as_in_pandas
        columns = {
            name: like(cells, self.dtypes.get(name)) if isinstance(cells, pd.Index) else cells
            for name, cells in columns.items()
        }
        if self.library == "polars":
            import polars as pl

            return pl.DataFrame(columns)
        if not self.index:
            return pd.DataFrame(columns)
        time, *names = columns
        return pd.DataFrame(
            {name: columns[name] for name in names}, index=pd.Index(columns[time], name=time)
        )


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
    dtypes = dict(zip(labels, plain.dtypes, strict=True))
    return Source(frame_table(plain), reading, labels, index=index, dtypes=dtypes)


def _from_polars(frame: Any, reading: Reading) -> Source:
    plain = from_polars(frame)
    labels, dtypes = tuple(plain.columns), dict(frame.collect_schema())
    return Source(frame_table(plain), reading, labels, library="polars", dtypes=dtypes)
