"""Time columns of integers: steps that are counted, of no calendar.

An integer ``n`` is kept as the timestamp n seconds after the beginning of 2000, so that everything
that goes by timestamps works; where people look, it is the integer again.
"""

import re

import numpy as np
import pandas as pd

ORIGIN = pd.Timestamp("2000-01-01").as_unit("us")
_SECOND = 1_000_000  # of the microseconds in which timestamps are counted
_INTEGER = re.compile(r"[+-]?[0-9]{1,8}(?:\.0+)?")
_DATE = re.compile(r"(?:1[5-9]|2[0-9])[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
_YEAR = re.compile(r"(?:1[5-9]|2[0-9])[0-9]{2}")


def holds_integers(cells: pd.Series, *, known: bool = False) -> bool:
    """Return whether a time column counts steps.

    It does where all its cells are integers of at most eight digits, unless all of them read as
    dates (20200131) or as years (1500 to 2999).

    Args:
        cells: the text of the column.
        known: whether such data are known to count steps, so that integers are no dates.
    """
    if not len(cells) or not _INTEGER.fullmatch(str(cells.iloc[0])):
        return False
    if not cells.str.fullmatch(_INTEGER).all():
        return False
    return known or not any(cells.str.fullmatch(pattern).all() for pattern in (_DATE, _YEAR))


def from_integers(cells: pd.Series) -> pd.DatetimeIndex:
    """Return the timestamps that stand for integers, given as text."""
    return stamps_of(cells.str.partition(".")[0].astype(np.int64).to_numpy())


def stamps_of(integers: np.ndarray) -> pd.DatetimeIndex:
    """Return the timestamps that stand for integers."""
    return pd.DatetimeIndex((ORIGIN.asm8.astype(np.int64) + integers * _SECOND).view("M8[us]"))


def to_integers(times: pd.DatetimeIndex) -> np.ndarray:
    """Return the integers that timestamps stand for."""
    return (times.as_unit("us").asi8 - ORIGIN.asm8.astype(np.int64)) // _SECOND


def integer_text(time: pd.Timestamp) -> str:
    """Return the integer that a timestamp stands for, as text."""
    return str(round((time - ORIGIN).total_seconds()))
