"""Which columns of a table are read, where somebody has said what is to be forecast."""

from collections.abc import Sequence
from difflib import get_close_matches

from tsattn.data.amounts import listed
from tsattn.data.calendar import FEATURES
from tsattn.data.reading import Reading
from tsattn.errors import DataError


def select_columns(
    names: Sequence[str], columns: Sequence[int], reading: Reading, label: str
) -> tuple[list[int], tuple[str, ...]]:
    """Keep the columns that are forecast and their covariates, in the file's order.

    Args:
        names: of all columns of the table.
        columns: positions of those that may be read: all but the time.
        reading: whose ``targets`` are to be forecast; all columns, where it names none.
        label: what messages call the table.

    Returns:
        Positions of the columns that are kept, and a note on the others.

    Raises:
        DataError: a target or covariate that is not there, or a column that is both.
    """
    if not reading.targets:
        return list(columns), ()
    twice = [name for name in reading.targets if name in reading.covariates]
    if twice:
        raise DataError(
            f"{label}: {_listed(twice)} cannot be target and covariate; a column is one of "
            "--data.targets, --data.known_future, --data.past and --data.static"
        )
    there = [names[column] for column in columns]
    for what, given in (("to forecast", reading.targets), ("for a covariate", _of_file(reading))):
        missing = [name for name in given if name not in there]
        if missing:
            hint = " (it is the time, or a covariate)" if missing[0] in names else ""
            raise DataError(
                f"{label}: no column {_listed(missing)} {what}{hint or _nearest(missing[0], there)}"
                f"; the columns are {_listed(there)}"
            )
    wanted = {*reading.targets, *reading.covariates}
    kept = [column for column in columns if names[column] in wanted]
    left = [name for name in there if name not in wanted]
    return kept, (f"columns not used: {_listed(left)}",) if left else ()


def require_wide(reading: Reading, label: str) -> None:
    """Refuse targets of the long layout, which has one.

    Raises:
        DataError: targets other than y.
    """
    others = [name for name in reading.targets if name.casefold() != "y"]
    if others:
        raise DataError(
            f"{label}: the long layout forecasts y, so {_listed(others)} cannot be a target; leave "
            "--data.targets out, rename the column to y, or use --data.layout wide"
        )


def _nearest(name: str, there: Sequence[str]) -> str:
    lowered = {one.casefold(): one for one in there}
    near = get_close_matches(name.casefold(), list(lowered), n=1)
    return f" (did you mean {lowered[near[0]]!r}?)" if near else ""


def _of_file(reading: Reading) -> list[str]:
    """Return the covariates that have to be columns; calendar features need not."""
    return [name for name in reading.covariates if name not in FEATURES]


def _listed(names: Sequence[str]) -> str:
    return listed(names, lambda name: repr(name) if name else "one without a name", most=8)
