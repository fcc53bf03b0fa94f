"""``tsattn data list | fetch | verify | describe``: tables on the terminal, a status as result."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tsattn.console import IN_PIPE, open_console
from tsattn.data.catalog import CATALOG, DatasetInfo, require
from tsattn.data.describe import ChannelStatistics, Description, describe_dataset
from tsattn.data.fetch import fetch_file
from tsattn.data.load import find_file, require_file, search_folders
from tsattn.data.reading import Duplicates, Gaps, Missing, Reading
from tsattn.data.steps import seconds_text
from tsattn.data.verify import verify_file
from tsattn.errors import DataError
from tsattn.options import naming_options, with_own_options

OK, FAILED = 0, 1


def list_datasets(root: Path | None = None) -> int:
    """List the datasets of the catalog and where their files are.

    Args:
        root: Folder in which files are looked for first.

    Returns:
        Exit status 0.
    """
    console = open_console(IN_PIPE)
    table = _table(
        ("name", "rows", "channels", "step", "borders", "sha256", "here"), "name", "borders"
    )
    for info in CATALOG.values():
        table.add_row(
            info.name,
            str(info.rows),
            str(info.channels),
            seconds_text(info.step_seconds),
            "70/10/20" if info.borders is None else "/".join(map(str, info.borders)),
            " ".join(f"{sha256[:8]}" for sha256 in info.sha256.values()),
            "yes" if find_file(info, root) else "no",
        )
    console.print(table)
    for info in CATALOG.values():
        place = find_file(info, root) or f"not here, run `tsattn data fetch {info.name}`"
        _say(console, f"{info.name}: {info.source}; {info.licence}; {place}")
    folders = ", ".join(f"{folder} ({kind})" for kind, folder in search_folders(root))
    _say(console, with_own_options(f"looked in {folders}", ["--root"]))
    return OK


def fetch(names: list[str], root: Path | None = None) -> int:
    """Download datasets of the catalog and check them.

    Args:
        names: Datasets, or ``all``.
        root: Target folder; without it ``TSATTN_DATA``, else the user cache.

    Returns:
        Exit status: 0 where every file is there and right, else 1.
    """
    console = open_console(IN_PIPE)
    status = OK
    for info in _chosen(names):
        try:
            path, is_new = fetch_file(info, root, show_progress=console.is_terminal)
        except DataError as error:
            _say(console, with_own_options(str(error), ["--root"]))
            status = FAILED
            continue
        _say(console, f"{info.name}: {'fetched to' if is_new else 'already at'} {path}")
    return status


def verify(names: list[str] | None = None, root: Path | None = None) -> int:
    """Compare files with the catalog and name every difference.

    Args:
        names: Datasets; without names all that are here, and those missing are no failure.
        root: Folder in which files are looked for first.

    Returns:
        Exit status: 0 where all files are right, else 1.
    """
    console = open_console(IN_PIPE)
    status = OK
    named = bool(names) and names != ["all"]
    for info in _chosen(names or ["all"]):
        path = find_file(info, root)
        if path is None and not named:
            _say(console, f"{info.name}: not here")
            continue
        try:
            problems = verify_file(info, path or require_file(info, root))
        except DataError as error:
            problems = [with_own_options(str(error), ["--root"])]
        _say(console, f"{info.name}: {'differs' if problems else 'right'} {path or ''}".rstrip())
        for problem in problems:
            _say(console, f"  {problem}")
        status = FAILED if problems else status
    return status


def describe(
    dataset: str,
    root: Path | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    day_first: bool | None = None,
    time_column: str | None = None,
    layout: Literal["wide", "long"] | None = None,
    missing: Missing = "error",
    duplicates: Duplicates = "error",
    gaps: Gaps = "error",
    time_zone: str | None = None,
    targets: list[str] | None = None,
) -> int:
    """Show span, step, gaps, duplicates, sentinels and statistics per channel.

    A file that cannot be used is described as far as it can be read.

    Args:
        dataset: Name out of the catalog, or path of a CSV file.
        root: Folder in which files of the catalog are looked for first.
        delimiter: Sign between cells.
        decimal: Decimal sign, ``.`` or ``,``.
        day_first: Whether 03/04/2020 is the third of April.
        time_column: Header of the time column.
        layout: ``wide`` or ``long``.
        missing: Missing values: ``error``, ``interpolate`` or ``mask``.
        duplicates: Rows with the same timestamp: ``error``, ``first``, ``last`` or ``mean``.
        gaps: Rows that lack: ``error`` or ``regularise``.
        time_zone: Zone of local timestamps, such as ``Europe/Berlin``.
        targets: Columns to forecast; others are not looked at.

    Returns:
        Exit status: 0 where the data can be used, else 1.

    Raises:
        DataError: There is nothing to read.
    """
    reading = Reading(
        delimiter,
        decimal,
        day_first,
        time_column,
        layout,
        missing,
        duplicates,
        gaps,
        time_zone,
        targets=tuple(targets or ()),
    )
    options = [f"--{name}" for name in signature(describe).parameters]
    with naming_options(options):
        description = describe_dataset(dataset, root=root, reading=reading)
    console = open_console(IN_PIPE)
    _print_facts(console, description, options)
    console.print(_statistics_table(description.channels))
    for note in description.notes:
        _say(console, with_own_options(f"note: {note}", options))
    if description.problem is None:
        return OK
    _say(console, with_own_options(f"cannot be used: {description.problem}", options))
    return FAILED


def _chosen(names: list[str]) -> list[DatasetInfo]:
    if names == ["all"]:
        return list(CATALOG.values())
    return [require(name) for name in names]


def _table(titles: Sequence[str], *words: str) -> Table:
    """Return an empty table; columns of words may wrap, numbers never do."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        if title in words:
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, justify="right", no_wrap=True)
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _print_facts(console: Console, description: Description, options: Sequence[str]) -> None:
    width = max(len(label) for label, _ in description.facts)
    _say(console, description.name)
    for label, text in description.facts:
        _say(console, with_own_options(f"  {label:<{width}}  {text}", options))


def _statistics_table(channels: tuple[ChannelStatistics, ...]) -> Table:
    titles = ("channel", "count", "missing", "mean", "sd", "min", "max", "zeros", "remarks")
    table = _table(titles, "channel", "remarks")
    for one in channels:
        remarks = ["constant"] if one.is_constant else []
        remarks += [f"sentinel {value:g}: {count}" for value, count in one.sentinels]
        numbers = (one.mean, one.sd, one.minimum, one.maximum)
        table.add_row(
            one.name,
            str(one.count),
            str(one.missing),
            *(f"{number:.5g}" for number in numbers),
            str(one.zeros),
            ", ".join(remarks),
        )
    return table
