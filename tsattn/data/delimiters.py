"""What separates the cells of a text file, and cutting it there."""

import csv
import io
from collections.abc import Sequence

from tsattn.errors import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_NAMED_DELIMITERS = {name: sign for sign, name in DELIMITERS.items()} | {"\\t": "\t"}
_SHOWN = 8


def delimiter_sign(delimiter: str) -> str:
    """Return the sign that a user means.

    Raises:
        DataError: It cannot separate cells.
    """
    sign = _NAMED_DELIMITERS.get(delimiter, delimiter)
    if len(sign) != 1 or sign.isalnum() or sign in '."':
        raise DataError(
            f"delimiter {delimiter!r} cannot separate cells; expected one sign such as ',' ';' "
            "'|', or the word tab"
        )
    return sign


def _quoted_records(text: str, sign: str) -> tuple[list[int], list[list[str]]]:
    lines: list[int] = []
    records: list[list[str]] = []
    reader = csv.reader(io.StringIO(text), delimiter=sign)
    begin = 1
    for record in reader:
        if any(cell.strip() for cell in record):
            records.append(record)
            lines.append(begin)
        begin = reader.line_num + 1
    return lines, records


def quoted_records(text: str, sign: str, label: str) -> tuple[list[int], list[list[str]]]:
    """Split text with quoted cells into lines and cells; blank lines are skipped, but counted.

    Raises:
        DataError: A quotation mark is never closed, or there is no line.
    """
    try:
        lines, records = _quoted_records(text, sign)
    except csv.Error as error:
        raise DataError(
            f"{label} cannot be cut into cells ({error}); look for a quotation mark that is never "
            "closed"
        ) from None
    if not records:
        raise DataError(f"{label} has no header line; expected a time column, then channels")
    return lines, records


def refuse_endless(counts: Sequence[int], lines: Sequence[int], width: int, label: str) -> None:
    """Refuse rows of many more cells than the header before they become a frame as wide.

    Raises:
        DataError: With the lines.
    """
    bound = 4 * width + 100
    endless = [
        f"line {line} has {count}"
        for line, count in zip(lines, counts, strict=True)
        if count > bound
    ]
    if endless:
        more = f" and {len(endless) - _SHOWN} more lines" if len(endless) > _SHOWN else ""
        raise DataError(
            f"{label}: {', '.join(endless[:_SHOWN])} cells{more}, but the header has {width}; mend "
            "these lines, or say with --data.delimiter what separates cells"
        )


def _widths(sample: str, sign: str) -> list[int]:
    """Return how many cells a sign cuts each line into; one of what it cannot cut at all."""
    try:
        return [len(record) for record in _quoted_records(sample, sign)[1]] or [1]
    except csv.Error:
        return [1]


def recognise_delimiter(text: str, label: str) -> str:
    """Return the one sign that cuts header and rows into the same number of cells.

    Raises:
        DataError: No sign does, or more than one.
    """
    lines = [line for line in text[:200_000].split("\n")[:50] if line.strip()]
    sample = "\n".join(lines[:-1] if len(text) > 200_000 and len(lines) > 2 else lines)
    widths = {sign: _widths(sample, sign) for sign in DELIMITERS}
    even = [sign for sign, found in widths.items() if min(found) > 1 and len(set(found)) == 1]
    if len(even) == 1:
        return even[0]
    if len(even) > 1:
        names = " and ".join(DELIMITERS[sign] for sign in even)
        raise DataError(
            f"{label}: both {names} could separate the cells of {_short(lines[0])}; say which with "
            f"--data.delimiter '{even[0]}' or '{even[1]}'"
        )
    in_header = [sign for sign, found in widths.items() if found[0] > 1]
    if len(in_header) == 1:
        return in_header[0]  # ragged rows; the reader names the lines
    if not in_header:
        raise DataError(
            f"{label}: no channels: the header {_short(lines[0])} has one column; expected a time "
            "column and at least one channel separated by comma, semicolon, tab or bar, or "
            "--data.delimiter"
        )
    raise DataError(
        f"{label}: no sign cuts the header {_short(lines[0])} and the rows into equally many "
        "cells; set --data.delimiter and mend the rows that have more or fewer cells"
    )


def _short(line: str) -> str:
    return repr(line if len(line) <= 200 else line[:200] + "...")
