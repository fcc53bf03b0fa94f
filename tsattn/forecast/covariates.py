"""Covariates of a source's rows and of the horizon behind them, matched by name and time."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.covariates import FittedCovariates
from tsattn.data.numerals import NOTHING, covariate_values, with_flags
from tsattn.data.table import Table
from tsattn.errors import ConfigError, DataError
from tsattn.forecast.engine import Calendar, NameCovariates
from tsattn.forecast.history import History
from tsattn.forecast.reading import channel_columns, long_columns, time_column_of, times_of
from tsattn.forecast.sources import Source
from tsattn.forecast.trained import Trained


def require_known(trained: Trained) -> None:
    """Refuse rows of the future where a network knows nothing ahead.

    Raises:
        ConfigError: with what it does know.
    """
    if trained.covariates is None or not trained.covariates.names.known:
        known = f" ({trained.covariates.names})" if trained.covariates else ""
        raise ConfigError(
            f"this network takes no columns that are known ahead{known}; leave out --future "
            "(future=...)"
        )


def split_ahead(
    source: Source, trained: Trained, *, new_series: bool, sort: bool
) -> tuple[Source, Source | None]:
    """Part a source into its history and the last rows of each series without a value to forecast.

    Args:
        source: new data.
        trained: what the network was trained on; nothing is parted where it knows nothing ahead.
        new_series: whether names that were not trained on are welcome.
        sort: order the rows of each series by time first.
    """
    if trained.covariates is None or not trained.covariates.names.known:
        return source, None
    table = source.table
    if source.layout == "long":
        identity, time, target = long_columns(table)
        codes, _ = pd.factorize(table.text(identity))
        targets = [target]
    else:
        time, codes = time_column_of(source, trained), np.zeros(table.num_rows, dtype=np.int64)
        targets, _ = channel_columns(source, trained, time, new_series=new_series)
    empty = np.logical_and.reduce([_is_empty(table, column) for column in targets])
    if not empty.any():
        return source, None
    order = np.arange(table.num_rows)
    if sort:
        groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
        _, times, _ = times_of(source, time, groups if source.layout == "long" else None, trained)
        order = np.argsort(times.asi8, kind="stable")
    # a row lies ahead where no row of its series behind it has a value
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    last = np.full(codes.max() + 1, -1)
    np.maximum.at(last, codes[~empty], place[~empty])
    ahead = (place > last[codes]) & (last[codes] >= 0)
    if not ahead.any():
        return source, None
    past, future = (table.take(np.flatnonzero(rows)) for rows in (~ahead, ahead))
    return replace(source, table=past), replace(source, table=future)


def covariates_of(
    history: History,
    calendar: Calendar,
    trained: Trained,
    together: tuple[int, ...] | None,
) -> NameCovariates | None:
    """Read the covariates of a history that holds what is to be forecast.

    Args:
        history: the rows of every name.
        calendar: their timestamps.
        trained: what the network was trained on.
        together: the names' places where a network takes all of them with one set of covariates.

    Returns:
        None where the network takes no covariates.

    Raises:
        DataError: a column is missing, a value is no number, or names that a network sees together
            have different covariates.
    """
    fitted = trained.covariates
    if fitted is None:
        return None
    known_KNF = _rows(history, fitted.names.known)
    return _covariates(history, calendar, fitted, known_KNF, together)


def covariates_ahead(
    history: History,
    calendar: Calendar,
    trained: Trained,
    together: tuple[int, ...] | None,
    ahead: Source | None,
) -> NameCovariates | None:
    """Read the covariates of a history and of the horizon behind it.

    Args:
        history: the rows of every name.
        calendar: their timestamps, and those of the horizon.
        trained: what the network was trained on.
        together: as in `covariates_of`.
        ahead: rows with the columns known ahead; None where there are none.

    Raises:
        DataError: as `covariates_of`, or a row of the horizon is missing.
    """
    fitted = trained.covariates
    if fitted is None:
        return None
    names, known_KRF = fitted.names, _rows(history, fitted.names.known)
    if names.known:
        if ahead is None:
            raise DataError(
                f"{history.source.table.label}: the network takes {', '.join(names.known)} as known"
                f" ahead, and no rows follow {calendar.past[0][-1]}; give them with --future FILE "
                "(future=frame), or as further rows with an empty value to forecast"
            )
        horizon_KHF = horizon_values(history, calendar, names.known, ahead, trained)
        known_KRF = np.concatenate([known_KRF, horizon_KHF[: len(known_KRF)]], axis=1)
    else:
        known_KRF = np.empty((len(known_KRF), known_KRF.shape[1] + trained.horizon, 0))
    return _covariates(history, calendar, fitted, known_KRF, together)


def _covariates(
    history: History,
    calendar: Calendar,
    fitted: FittedCovariates,
    known_KRF: np.ndarray,
    together: tuple[int, ...] | None,
) -> NameCovariates:
    past_KNO = _rows(history, fitted.names.past)
    if together is not None:
        for name, values_KR in _by_name(fitted.names.known, known_KRF) + _by_name(
            fitted.names.past, past_KNO
        ):
            if (values_KR != values_KR[0]).any():
                raise DataError(
                    f"{history.source.table.label}: the network sees all channels together with"
                    f" one {name!r}, but the series have different values of it; make them equal"
                )
    marks_URG = calendar.marks(fitted.names.calendar)[:, : known_KRF.shape[1]]
    which = torch.from_numpy(calendar.which_K)
    return NameCovariates(
        torch.cat([_each(fitted.known, known_KRF), marks_URG[which]], dim=2),
        _each(fitted.past, past_KNO),
        fitted.static(_static(history, fitted.names.static)),
    )


def _by_name(names: Sequence[str], values_KRF: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(name, values_KRF[..., place]) for place, name in enumerate(names)]


def _each(standardise: Callable[[np.ndarray], Tensor], values_KRF: np.ndarray) -> Tensor:
    names, rows, width = values_KRF.shape
    return standardise(values_KRF.reshape(names * rows, width)).view(names, rows, width)


def _rows(history: History, names: Sequence[str]) -> np.ndarray:
    """Return columns [K, N, F] of the rows of every name, those of one timestamp merged."""
    if not names:
        return np.empty((*history.rows_KN.shape, 0))
    table = history.source.table
    inserted = np.flatnonzero((history.rows_KN >= table.num_rows).any(axis=1))
    if len(inserted):
        raise DataError(
            f"{table.label}: rows are missing within {history.names[inserted[0]]!r}, and covariates"
            f" ({', '.join(names)}) have no value in rows that are inserted; bring all rows"
        )
    return history.values(_read(history.source, names, history.tails.needed))


def _static(history: History, names: Sequence[str]) -> np.ndarray:
    label = history.source.table.label
    if names and history.source.layout == "wide":
        raise DataError(
            f"{label}: the network takes {', '.join(names)} of each series, and the wide layout has"
            f" no place for that; bring the columns unique_id, ds, y and {', '.join(names)}"
        )
    values_KNA = _rows(history, names)
    for name, values_KN in _by_name(names, values_KNA):
        changing = np.flatnonzero(np.ptp(values_KN, axis=1))
        if len(changing):
            raise DataError(
                f"{label}: static {name!r} changes within series {history.names[changing[0]]!r}"
            )
    return values_KNA[:, -1]


def horizon_values(
    history: History, calendar: Calendar, names: Sequence[str], ahead: Source, trained: Trained
) -> np.ndarray:
    """Return columns [K, H, F] for the timestamps of every name's horizon.

    Raises:
        DataError: a column or a row is missing, rows repeat, or a value is no number.
    """
    table = ahead.table
    lowered = {name: place for place, name in enumerate(table.lowered)}
    identity = lowered.get("unique_id") if history.source.layout == "long" else None
    is_long = history.source.layout == "long" and "ds" in lowered
    time = lowered["ds"] if is_long else time_column_of(ahead, trained)
    codes, series = np.zeros(table.num_rows, dtype=np.int64), {}
    if identity is not None:
        codes, uniques = pd.factorize(table.text(identity))
        series = {str(name): code for code, name in enumerate(uniques)}
    groups = [np.flatnonzero(codes == code) for code in range(max(1, len(series)))]
    _, times, _ = times_of(ahead, time, groups if identity is not None else None, trained)
    moments = _moments(times, table, calendar.future[0])
    rows_KH = np.empty((len(history.names), trained.horizon), dtype=np.int64)
    for place, name in enumerate(history.names):
        wanted = calendar.future[calendar.which_K[place]]
        group = groups[series.get(name, 0)] if name in series or not series else groups[0][:0]
        suffix = f" of series {name!r}" if series else ""
        rows_KH[place] = _rows_at(table, moments, group, wanted, suffix)
    return _read(ahead, names, rows_KH)[rows_KH]


def _rows_at(
    table: Table, moments: np.ndarray, group: np.ndarray, wanted: pd.DatetimeIndex, suffix: str
) -> np.ndarray:
    index, asked = pd.Index(moments[group]), pd.Index(wanted.as_unit("us").asi8)
    repeated = index.duplicated(keep=False) & index.isin(asked)
    if repeated.any():
        rows = group[repeated]
        raise DataError(
            f"{table.label}: timestamps of the horizon{suffix} repeat in {table.where(rows)}; keep "
            "one row of each"
        )
    unique = ~index.duplicated()
    found = index[unique].get_indexer(asked)
    missing = wanted[found < 0]
    if len(missing):
        raise DataError(
            f"{table.label}: {len(missing)} of the {len(wanted)} rows of the horizon{suffix} are "
            f"missing: {listed(list(missing))}; covariates that are known ahead are needed for "
            f"every step from {wanted[0]} to {wanted[-1]}"
        )
    return group[unique][found]


def _moments(times: pd.DatetimeIndex, table: Table, like: pd.DatetimeIndex) -> np.ndarray:
    if (times.tz is None) != (like.tz is None):
        has, lacks = "the history", table.label
        if like.tz is None:
            has, lacks = lacks, has
        raise DataError(
            f"timestamps of {has} have a time zone, those of {lacks} have none; give both one"
        )
    return times.as_unit("us").asi8


def _read(source: Source, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Return columns of all rows in the order of names; those that are needed are finite."""
    table = with_flags(source.table, names)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.label}: covariates missing: {', '.join(map(repr, missing))}; the network takes"
            f" {', '.join(map(repr, names))}, the columns are {', '.join(map(repr, table.columns))}"
        )
    places = [table.columns.index(name) for name in names]
    return covariate_values(table, places, source.reading.decimal, np.unique(rows))


def _is_empty(table: Table, column: int) -> np.ndarray:
    cells = table.cells(column)
    if pd.api.types.is_numeric_dtype(cells):
        return cells.isna().to_numpy(bool)
    return table.text(column).str.casefold().isin(NOTHING).to_numpy(bool)
