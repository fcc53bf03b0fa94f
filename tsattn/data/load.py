"""Find, read and check a dataset: one of the catalog by name, or a user's own file or frame."""

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsattn.data import catalog
from tsattn.data.amounts import counted
from tsattn.data.catalog import CATALOG, DatasetInfo
from tsattn.data.frames import from_polars, is_polars
from tsattn.data.own import read_own_frame, read_own_table
from tsattn.data.panel import Panel, Series
from tsattn.data.reading import Reading
from tsattn.data.selecting import select_columns
from tsattn.data.steps import find_irregularities, gap_texts
from tsattn.data.table import EXACT_DECIMALS, read_table
from tsattn.data.timestamps import parse_times
from tsattn.data.treatment import Treatment
from tsattn.errors import DataAbsentError, DataError
from tsattn.resources import datasets_dir

ROOT_VARIABLE = "TSATTN_DATA"
CACHE_VARIABLE = "TSATTN_CACHE"


def cache_dir() -> Path:
    """Return the folder for downloads: ``TSATTN_CACHE``, else the user's cache on this platform."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import pooch  # imports its downloaders, needed only here

    return Path(pooch.os_cache("tsattn"))


def search_folders(root: Path | None = None) -> tuple[tuple[str, Path], ...]:
    """Return the folders where files of the catalog are looked for, in order, with what they are.

    Args:
        root: Folder of ``--data.root``; comes first.
    """
    folders: list[tuple[str, Path]] = []
    if root is not None:
        folders.append(("--data.root", Path(root).expanduser()))
    variable = os.environ.get(ROOT_VARIABLE)
    if variable:
        folders.append((ROOT_VARIABLE, Path(variable).expanduser()))
    folders.append(("shipped datasets", datasets_dir()))
    folders.append(("user cache", cache_dir()))
    return tuple(folders)


def find_file(info: DatasetInfo, root: Path | None = None) -> Path | None:
    """Return the first file of a catalog dataset in the search folders, or None."""
    for _, folder in search_folders(root):
        path = folder / info.filename
        if path.is_file():
            return path
    return None


def require_file(info: DatasetInfo, root: Path | None = None) -> Path:
    """Return what `find_file` does, and raise where there is no such file.

    Raises:
        DataAbsentError: The file is in none of the folders; the message has them and what to run.
    """
    path = find_file(info, root)
    if path is None:
        folders = search_folders(root)
        looked = ", ".join(f"{folder} ({kind})" for kind, folder in folders)
        raise DataAbsentError(
            f"dataset {info.name}: no file {info.filename} in {looked}; run "
            f"`tsattn data fetch {info.name}`, or put {info.filename} into one of these folders"
        )
    return path


def load_panel(
    dataset: str | Path | pd.DataFrame | Any,
    *,
    root: Path | None = None,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> Panel:
    """Read a dataset and check it.

    Args:
        dataset: Name out of the catalog, path of a CSV file, or a data frame of pandas or polars.
        root: Folder in which files of the catalog are looked for first.
        reading: How to read a user's own file where it does not say so itself.

    Returns:
        The panel; its notes say what was recognised and what is unusual.

    Raises:
        DataError: There is no such dataset, or the file cannot be used; the message says which
            lines and columns are to blame and what to do.
    """
    if isinstance(dataset, pd.DataFrame):
        return read_own_frame(dataset, reading)
    if is_polars(dataset):
        return read_own_frame(from_polars(dataset), reading)
    if not isinstance(dataset, str | os.PathLike):
        raise DataError(
            f"{type(dataset).__name__} is no dataset; expected a name of the catalog, the path of "
            "a CSV file, or a pandas or polars DataFrame"
        )
    info = catalog.find(str(dataset))
    treatment = Treatment.of(reading)
    if info is not None:
        path = require_file(info, root)
        return _untreated(_read_benchmark(path, path.read_bytes(), info, reading), treatment)
    path = _own_path(Path(dataset))
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    info = catalog.find_by_sha256(sha256)
    if info is not None:
        panel = _read_benchmark(path, data, info, reading, recognised=True)
        return _untreated(panel, treatment)
    table = read_table(data, str(path), reading.delimiter)
    return read_own_table(table, reading, name=path.stem, path=path, sha256=sha256)


def _untreated(panel: Panel, treatment: Treatment) -> Panel:
    """Say so where a policy was asked for that a published file does not need."""
    if treatment == Treatment():
        return panel
    note = (
        f"{panel.name} is read as published: missing, duplicates, gaps and time_zone do not apply"
    )
    return replace(panel, notes=(*panel.notes, note))


def _own_path(dataset: Path) -> Path:
    path = dataset.expanduser()
    if path.is_dir():
        raise DataError(
            f"{path} is a folder; expected a CSV file, or a name of the catalog together with "
            f"--data.root {path}"
        )
    if path.is_file():
        return path
    close = catalog.nearest(path.stem)
    hint = f" (nearest: {', '.join(close)})" if close else ""
    if path.suffix or len(path.parts) > 1:
        raise DataError(
            f"no file {path.absolute()}; expected a path to a CSV file, or a name of the "
            f"catalog{hint}: {', '.join(CATALOG)}"
        )
    raise DataError(
        f"unknown dataset {str(dataset)!r}: neither a file ({path.absolute()} does not exist) nor "
        f"a name of the catalog{hint}; expected a path to a CSV file or one of {', '.join(CATALOG)}"
    )


def read_benchmark_frame(data: bytes) -> pd.DataFrame:
    """Read the bytes of a catalog file exactly; undecodable header characters become U+FFFD."""
    return pd.read_csv(
        io.BytesIO(data), encoding="utf-8", encoding_errors="replace", **EXACT_DECIMALS
    )


def _read_benchmark(
    path: Path, data: bytes, info: DatasetInfo, reading: Reading, *, recognised: bool = False
) -> Panel:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        frame = read_benchmark_frame(data)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise _damaged(path, info, f"it cannot be read as CSV ({error})") from None
    problems = shape_problems(frame, info)
    if problems:
        raise _damaged(path, info, "; ".join(problems))
    names = tuple(map(str, frame.columns))
    columns, left = select_columns(names, range(1, len(names)), reading, info.name)
    channels = tuple(names[column] for column in columns)
    values_RC = np.require(frame.iloc[:, columns].to_numpy(np.float64), requirements="W")
    parsed = parse_times(
        frame.iloc[:, 0].astype(str), day_first=None, label=f"{path}, column {info.time_column!r}"
    )
    if parsed.unread:
        raise _damaged(path, info, f"line {parsed.unread[0] + 2} has no timestamp")
    notes: list[str] = []
    if recognised:
        notes.append(f"the file's bytes are those of {info.name}: its borders apply")
    if info.variant_of(sha256) is None:
        notes.append(
            f"WARNING: sha256 {sha256} of {path} is not a known one of {info.name}; scores may "
            f"not be comparable; `tsattn data verify {info.name}` says what differs"
        )
    notes += irregularity_notes(parsed.times)
    notes += _value_notes(values_RC, channels, info)
    notes += left
    return Panel(
        name=info.name,
        path=path,
        sha256=sha256,
        channels=channels,
        series=(Series(info.name, parsed.times, values_RC),),
        step=pd.Timedelta(seconds=info.step_seconds),
        step_seconds=float(info.step_seconds),
        layout="wide",
        time_column=info.time_column,
        notes=tuple(notes),
        info=info,
    )


def _damaged(path: Path, info: DatasetInfo, what: str) -> DataError:
    return DataError(
        f"{path} is not the {info.name} of the catalog: {what}; move it away and run "
        f"`tsattn data fetch {info.name}`, or give your own file by its path"
    )


def shape_problems(frame: pd.DataFrame, info: DatasetInfo) -> list[str]:
    """Return in words how a file's columns, rows and cells differ from the catalog."""
    problems: list[str] = []
    names = [str(name) for name in frame.columns]
    if len(names) - 1 != info.channels:
        problems.append(f"{len(names) - 1} channels where {info.channels} are expected")
    if names[0] != info.time_column or names[-1] != info.target:
        problems.append(
            f"columns from {names[0]!r} to {names[-1]!r} where {info.time_column!r} to "
            f"{info.target!r} are expected"
        )
    elif info.header is not None and len(names) == len(info.header):
        pairs = zip(names, info.header, strict=True)
        wrong = [
            f"{name!r} where {expected!r} is expected"
            for name, expected in pairs
            if name != expected
        ]
        if wrong:
            problems.append(f"columns {', '.join(wrong)}")
    if len(frame) != info.rows:
        problems.append(f"{len(frame)} rows where {info.rows} are expected")
    for name in frame.columns[1:]:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            numbers = pd.to_numeric(column, errors="coerce")
            row = int(np.flatnonzero(numbers.isna())[0]) if numbers.isna().any() else 0
            problems.append(f"column {name!r} has text in line {row + 2}: {column.iloc[row]!r}")
        elif not np.isfinite(column.to_numpy(np.float64)).all():
            row = int(np.flatnonzero(~np.isfinite(column.to_numpy(np.float64)))[0])
            problems.append(f"column {name!r} has no finite number in line {row + 2}")
    return problems


def irregularity_notes(times: pd.DatetimeIndex) -> list[str]:
    """Return in words where a benchmark file's timestamps repeat, run backwards or leave gaps."""
    found = find_irregularities(times)
    notes: list[str] = []
    if found.duplicated:
        shown = ", ".join(f"{times[row]} (line {row + 2})" for row in found.duplicated[:5])
        notes.append(f"{counted(len(found.duplicated), 'duplicate timestamp')}, kept: {shown}")
    if found.backward:
        notes.append(f"timestamps that run backwards, kept: {len(found.backward)}")
    if found.uneven:
        gaps = gap_texts(times, found.uneven)
        notes.append(f"{counted(len(found.uneven), 'uneven step')}, rows kept as they are: {gaps}")
    return notes


def _value_notes(values_RC: np.ndarray, names: tuple[str, ...], info: DatasetInfo) -> list[str]:
    if info.sentinel is None:
        return []
    counts = (values_RC == info.sentinel).sum(axis=0)
    held = [f"{name!r} {count}" for name, count in zip(names, counts, strict=True) if count]
    return [f"sentinel {info.sentinel:g} kept in {', '.join(held)}"] if held else []
