"""Compare files on disk with the catalog, strictly."""

import hashlib
from pathlib import Path

import pandas as pd

from tsattn.data.catalog import DatasetInfo
from tsattn.data.load import read_benchmark_frame, shape_problems


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_file(info: DatasetInfo, path: Path) -> list[str]:
    """Return in words everything in which a file differs from the catalog; empty where it is right.

    A known hash settles the matter. Without one, size, header, columns, rows, cells and the first
    and last timestamps are compared, so that the message says what to look for.

    Args:
        info: What the file should be.
        path: The file.
    """
    sha256 = file_sha256(path)
    if info.variant_of(sha256) is not None:
        return []
    known = " or ".join(f"{value} ({name})" for name, value in info.sha256.items())
    problems = [f"sha256 {sha256} where {known} is expected"]
    size = path.stat().st_size
    if size not in info.size_bytes.values():
        sizes = " or ".join(f"{value} ({name})" for name, value in info.size_bytes.items())
        problems.append(f"{size} bytes where {sizes} are expected")
    try:
        frame = read_benchmark_frame(path.read_bytes())
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        return [*problems, f"not readable as CSV: {error}"]
    differences = shape_problems(frame, info) + _span_problems(frame, info)
    return problems + (differences or ["header, columns and rows are right: some values differ"])


def _span_problems(frame: pd.DataFrame, info: DatasetInfo) -> list[str]:
    problems: list[str] = []
    for what, row, expected in (("first", 0, info.start), ("last", -1, info.end)):
        if expected is None or not len(frame):
            continue
        cell = frame.iloc[row, 0]
        found = pd.to_datetime(str(cell), errors="coerce")
        if found != pd.Timestamp(expected):
            problems.append(f"{what} timestamp {cell!r} where {expected} is expected")
    return problems
