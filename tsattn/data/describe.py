"""What a data file holds, told as far as it can be read, however malformed it is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tsattn.data import catalog
from tsattn.data.amounts import counted, listed
from tsattn.data.load import load_panel, require_file
from tsattn.data.numerals import lenient_values, text_counts
from tsattn.data.panel import Panel
from tsattn.data.reading import Reading
from tsattn.data.selecting import select_columns
from tsattn.data.steps import find_irregularities, gap_texts, step_text
from tsattn.data.table import Table, read_table
from tsattn.data.timecolumn import find_time_column
from tsattn.data.timestamps import parse_times
from tsattn.errors import DataError

# numbers that files often hold where nothing was measured
USUAL_SENTINELS = (-9999.0, -999.0, -99999.0, 9999.0, 99999.0)


@dataclass(frozen=True)
class ChannelStatistics:
    """Statistics of one channel over all its finite values.

    Attributes:
        name: Header of the channel.
        count: Finite values.
        missing: Cells that are empty, hold a word for nothing such as NaN, or are infinite.
        mean: Mean.
        sd: Population standard deviation.
        minimum: Smallest value.
        maximum: Largest value.
        zeros: How many values are 0.
        is_constant: Whether all values are the same.
        sentinels: Values that probably stand for "not measured", with their counts.
        text: Cells that hold other text.
    """

    name: str
    count: int
    missing: int
    mean: float
    sd: float
    minimum: float
    maximum: float
    zeros: int
    is_constant: bool
    sentinels: tuple[tuple[float, int], ...]
    text: int = 0


@dataclass(frozen=True)
class Description:
    """What `describe_dataset` found out.

    Attributes:
        name: Name of the dataset or the file.
        facts: Label and text of every fact, in the order in which to show them.
        channels: Statistics per channel.
        notes: What was recognised.
        problem: Why the data cannot be used for training, or None.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    channels: tuple[ChannelStatistics, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None


def describe_dataset(
    dataset: str | Path | pd.DataFrame, *, root: Path | None = None, reading: Reading | None = None
) -> Description:
    """Describe a dataset of the catalog, or a user's own file even where it cannot be used.

    Args:
        dataset: As `load_panel` takes it.
        root: Folder in which files of the catalog are looked for first.
        reading: How to read a user's own file.

    Raises:
        DataError: There is nothing to read at all: no such file, or no table in it.
    """
    reading = reading or Reading()
    try:
        return _of_panel(load_panel(dataset, root=root, reading=reading))
    except DataError as error:
        if isinstance(dataset, pd.DataFrame):
            raise
        table, name = _table_anyway(dataset, root, reading, error)
        return replace(_of_table(table, reading, name, str(error)), problem=str(error))


def _table_anyway(
    dataset: str | Path, root: Path | None, reading: Reading, error: DataError
) -> tuple[Table, str]:
    info = catalog.find(str(dataset))
    path = require_file(info, root) if info else Path(dataset).expanduser()
    if not path.is_file():
        raise error
    try:
        return read_table(path.read_bytes(), str(path), reading.delimiter), path.stem
    except DataError:
        raise error from None


def _of_panel(panel: Panel) -> Description:
    values_RC = np.concatenate([series.values_RC for series in panel.series])
    facts = [
        ("file", str(panel.path)),
        ("sha256", panel.sha256),
        ("layout", panel.layout),
        ("rows", _rows_text(panel)),
        ("channels", f"{panel.num_channels}"),
        ("span", panel.span),
        ("step", step_text(panel.step)),
    ]
    if panel.layout == "long":
        lengths = np.asarray(panel.lengths)
        text = f"{len(lengths)}, of {lengths.min()} to {lengths.max()} rows, median "
        facts.append(("series", f"{text}{np.median(lengths):g}"))
    if panel.info is not None:
        facts += _catalog_facts(panel.info)
        facts += _time_facts(panel.series[0].times)
    else:
        facts += _mended_facts(panel)
    known = () if panel.info is None or panel.info.sentinel is None else (panel.info.sentinel,)
    return Description(
        name=panel.name,
        facts=tuple(facts),
        channels=_statistics(panel.channels, values_RC, known),
        notes=panel.notes,
    )


def _rows_text(panel: Panel) -> str:
    """Return how many rows the file has and, where a policy changed that, how many count."""
    treated, used = panel.treated, panel.num_rows
    if not (treated.merged or treated.inserted):
        return f"{used}"
    in_file = used + treated.merged - treated.inserted
    return f"{in_file} in the file, {used} as used and in the statistics below"


def _mended_facts(panel: Panel) -> list[tuple[str, str]]:
    """Return what was irregular in a file that can be used: all of it was merged or inserted."""
    merged, inserted = panel.treated.merged, panel.treated.inserted
    duplicates = f"{counted(merged, 'row')} merged, {panel.treatment.duplicates} kept"
    gaps = f"{counted(inserted, 'row')} missing, inserted without values"
    return [("duplicates", duplicates if merged else "0"), ("gaps", gaps if inserted else "0")]


def _catalog_facts(info: catalog.DatasetInfo) -> list[tuple[str, str]]:
    borders = "shares of 70/10/20" if info.borders is None else f"rows {info.borders}"
    return [("borders", borders), ("licence", info.licence), ("source", info.source)]


def _of_table(table: Table, reading: Reading, name: str, problem: str) -> Description:
    facts = [
        ("file", table.label),
        ("rows", f"{table.num_rows}"),
        ("columns", f"{len(table.columns)}"),
    ]
    skipped: set[int] = set()
    try:
        time = find_time_column(table, reading.time_column)
        skipped.add(time)
        label = f"{table.label}, column {table.columns[time]!r}"
        parsed = parse_times(table.text(time), day_first=reading.day_first, label=label)
        facts.append(("time column", table.columns[time]))
        facts.append(("unreadable timestamps", f"{len(parsed.unread)}"))
        facts += _span_facts(table, parsed.times)
    except DataError as error:
        told = str(error)
        facts.append(("time", "cannot be told, see below" if told == problem else told))
    if "unique_id" in table.lowered:
        skipped.add(table.lowered.index("unique_id"))
    channels = [column for column in range(len(table.columns)) if column not in skipped]
    with suppress(DataError):  # names that are not there are the problem that is shown
        channels, _ = select_columns(table.columns, channels, reading, table.label)
    statistics, more = _table_channels(table, channels, reading)
    return Description(name=name, facts=(*facts, *more), channels=statistics, notes=table.notes)


def _table_channels(
    table: Table, columns: Sequence[int], reading: Reading
) -> tuple[tuple[ChannelStatistics, ...], list[tuple[str, str]]]:
    """Return the statistics of columns that hold a number, and facts on text."""
    values_RC = lenient_values(table, columns, reading.decimal)
    names = [table.columns[column] for column in columns]
    texts = text_counts(table, columns, values_RC)
    channels = [
        replace(one, text=text, missing=one.missing - text)
        for one, text in zip(_statistics(names, values_RC, ()), texts, strict=True)
    ]
    without = [repr(one.name) for one in channels if not one.count]
    told = [f"{one.text} in {one.name!r}" for one in channels if one.count and one.text]
    facts = [("columns without a number", listed(without)), ("cells of text", listed(told))]
    return tuple(one for one in channels if one.count), [fact for fact in facts if fact[1]]


def _span_facts(table: Table, times: pd.DatetimeIndex) -> list[tuple[str, str]]:
    known = times.notna()
    if not known.any():
        return []
    span = ("span", f"{times.min()} to {times.max()}")
    if "unique_id" not in table.lowered:
        return [span, ("step", _usual_step(times[known])), *_time_facts(times[known])]
    names = table.text(table.lowered.index("unique_id"))
    rows = pd.DataFrame({"name": names.to_numpy(), "time": times})[known]
    return [
        span,
        ("series", f"{rows['name'].nunique()}"),
        ("duplicates", f"{int(rows.duplicated().sum())}"),
    ]


def _usual_step(times: pd.DatetimeIndex) -> str:
    """Return the step of most rows, and whether there are others."""
    found = find_irregularities(times)
    if len(times) > 1 and len(found.backward) == len(times) - 1:
        return f"{_usual_step(times[::-1])}, backwards"
    return f"{found.usual} mostly" if found and found.usual != "unknown" else found.usual


def _time_facts(times: pd.DatetimeIndex) -> list[tuple[str, str]]:
    found = find_irregularities(times)
    duplicates = ", ".join(str(times[row]) for row in found.duplicated[:5])
    gaps = gap_texts(times, found.uneven)
    facts = [
        ("duplicates", f"{len(found.duplicated)}{f': {duplicates}' if duplicates else ''}"),
        ("gaps", f"{len(found.uneven)}{f': {gaps}' if gaps else ''}"),
    ]
    if found.backward:
        facts.append(("backward steps", f"{len(found.backward)}"))
    return facts


def _statistics(
    names: Sequence[str], values_RC: np.ndarray, known: Sequence[float]
) -> tuple[ChannelStatistics, ...]:
    return tuple(_channel(name, values_RC[:, place], known) for place, name in enumerate(names))


def _channel(name: str, values: np.ndarray, known: Sequence[float]) -> ChannelStatistics:
    finite = values[np.isfinite(values)]
    if not len(finite):
        nothing = float("nan")
        return ChannelStatistics(
            name, 0, len(values), nothing, nothing, nothing, nothing, 0, False, ()
        )
    lowest, highest = float(finite.min()), float(finite.max())
    suspects = [*known, *(value for value in USUAL_SENTINELS if value in (lowest, highest))]
    counts = {value: int((finite == value).sum()) for value in suspects}
    return ChannelStatistics(
        name=name,
        count=len(finite),
        missing=len(values) - len(finite),
        mean=float(finite.mean()),
        sd=float(finite.std()),
        minimum=lowest,
        maximum=highest,
        zeros=int((finite == 0).sum()),
        is_constant=lowest == highest,
        sentinels=tuple((value, count) for value, count in counts.items() if count),
    )
