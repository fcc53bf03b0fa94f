"""From a panel to the windows of training, validation and test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsattn.data.amounts import listed
from tsattn.data.calendar import HOURLY_FOUR, calendar_marks
from tsattn.data.covariates import (
    FittedCovariates,
    RowCovariates,
    name_covariates,
    split_covariates,
)
from tsattn.data.own import spread
from tsattn.data.panel import Panel
from tsattn.data.scaling import Scaler
from tsattn.data.splits import Borders, Part, count_windows, require_windows, split_borders
from tsattn.data.targets import require_targets
from tsattn.data.windows import Windows, split_missing
from tsattn.data.zones import wall_time
from tsattn.errors import DataError


@dataclass(frozen=True, eq=False)
class Prepared:
    """Windows of the three parts over one shared tensor of standardised rows.

    Attributes:
        train: Windows whose rows all lie in the training part.
        val: Windows whose horizon lies in the validation part.
        test: Windows whose horizon lies in the test part.
        scaler: Fitted on the training rows of every series.
        borders: Row ranges of every series, counted from its own first row.
        panel: The data as it was read; series that are too short for any window are left out.
        context: Context rows of a window.
        horizon: Horizon rows of a window.
        calendar: Names of the calendar features, in the order of the marks.
        notes: The panel's notes and whatever came up here.
        covariates: Names of the covariates and what standardises them, where there are any.
    """

    train: Windows
    val: Windows
    test: Windows
    scaler: Scaler
    borders: tuple[Borders, ...]
    panel: Panel
    context: int
    horizon: int
    calendar: tuple[str, ...]
    notes: tuple[str, ...]
    covariates: FittedCovariates | None = None


def prepare(
    panel: Panel,
    *,
    context: int,
    horizon: int,
    borders: Sequence[float | int] | None = None,
    calendar: Sequence[str] = HOURLY_FOUR,
    known_future: Sequence[str] = (),
    past: Sequence[str] = (),
    static: Sequence[str] = (),
    whole: bool = False,
) -> Prepared:
    """Split, standardise and cut a panel into windows.

    Every series of the long layout has its own borders and its own scaler. One that is too short
    for a part gives that part no windows; one that is too short for all parts is left out and
    named in the notes.

    Args:
        panel: Data in original units.
        context: Rows that a window shows to the network, at least 1.
        horizon: Rows that it forecasts, at least 1.
        borders: Three row ends or three shares, as `split_borders` takes them.
        calendar: Names of the calendar features.
        known_future: Covariates that are known ahead: columns or calendar features.
        past: Columns that are covariates up to now.
        static: Columns of the long layout that are constant within each series.
        whole: Whether all rows up to the end of the test part are for training, and none for
            validation and test.

    Returns:
        The three parts, the scaler and the borders.

    Raises:
        DataError: A part has no room for a window, the borders do not fit, or a covariate cannot be
            used.
    """
    if context < 1 or horizon < 1:
        raise DataError(f"context {context} and horizon {horizon} must be at least 1")
    chosen = _whole_series if whole else _fitting_series
    panel, fitting, notes = chosen(panel, context, horizon, borders)
    covariates = None
    if known_future or past or static:
        names = name_covariates(panel, known_future, past, static)
        panel, covariates = split_covariates(panel, names)
        notes += (f"covariates: {names}",)
    scaler = _fit_scaler(panel, fitting)
    rows = [scaler.standardise(one.values_RC, index) for index, one in enumerate(panel.series)]
    values_RC, observed_RC = split_missing(torch.cat(rows))
    marks_RM = _marks(panel, calendar)
    fill = panel.treatment.missing == "interpolate"
    fitted = covariates.fit([border.train for border in fitting]) if covariates else None
    beside = covariates.standardised(fitted, _times(panel)) if covariates and fitted else None
    windows = {
        label: _windows(
            values_RC,
            marks_RM,
            panel.lengths,
            parts,
            context,
            horizon,
            beside,
            observed_RC,
            fill=fill,
        )
        for label, parts in _parts(fitting).items()
    }
    for label, part in windows.items():
        require_targets(part, label, panel.name)
    return Prepared(
        **windows,
        scaler=scaler,
        borders=fitting,
        panel=panel,
        context=context,
        horizon=horizon,
        calendar=tuple(calendar),
        notes=panel.notes + notes + _constant_notes(panel, fitting),
        covariates=fitted,
    )


def _times(panel: Panel) -> pd.DatetimeIndex:
    """Return the local timestamps of all rows."""
    return pd.DatetimeIndex(
        np.concatenate([wall_time(one.times).to_numpy() for one in panel.series])
    )


def _marks(panel: Panel, calendar: Sequence[str]) -> Float[Tensor, "R M"]:
    marks_RM = calendar_marks(_times(panel), calendar)
    return marks_RM.zero_() if panel.integers else marks_RM


def _fit_scaler(panel: Panel, borders: Sequence[Borders]) -> Scaler:
    rows: list[np.ndarray] = []
    for series, border in zip(panel.series, borders, strict=True):
        own_RC = series.values_RC[slice(*border.train)]
        empty = np.flatnonzero(np.isnan(own_RC).all(axis=0))
        if len(empty):
            names = ", ".join(repr(panel.channels[place]) for place in empty[:5])
            raise DataError(
                f"{panel.name}, series {series.id!r}: no value of {names} in the training rows "
                f"{border.train[0]} to {border.train[1]}, so nothing says how to standardise it; "
                "remove it, or move --data.borders"
            )
        rows.append(own_RC)
    return Scaler.fit(rows)


def _parts(borders: Sequence[Borders]) -> dict[str, list[Part]]:
    return {
        "train": [border.train for border in borders],
        "val": [border.val for border in borders],
        "test": [border.test for border in borders],
    }


def _constant_notes(panel: Panel, borders: Sequence[Borders]) -> tuple[str, ...]:
    """Name what is constant while training and moves later: its score says nothing."""
    held: list[str] = []
    for series, border in zip(panel.series, borders, strict=True):
        still = spread(series.values_RC[slice(*border.train)]) == 0
        moves = spread(series.values_RC) > 0
        for place in np.flatnonzero(still & moves):
            held.append(series.id if panel.layout == "long" else panel.channels[place])
    if not held:
        return ()
    return (f"constant in the training rows, standardised with scale 1: {listed(held, repr)}",)


def _fitting_series(
    panel: Panel, context: int, horizon: int, borders: Sequence[float | int] | None
) -> tuple[Panel, tuple[Borders, ...], tuple[str, ...]]:
    """Return the panel of the series that have a window, their borders, and what was left out."""
    divided = tuple(
        _borders_of(panel, index, context, borders) for index in range(panel.num_series)
    )
    if panel.num_series == 1:
        require_windows(divided[0], context, horizon, name=panel.name)
        return panel, divided, ()
    counts = [
        {label: count_windows(part, context, horizon) for label, part in border.parts().items()}
        for border in divided
    ]
    for label in ("train", "val", "test"):
        if not any(count[label] for count in counts):
            longest = max(range(panel.num_series), key=lambda index: panel.lengths[index])
            series = panel.series[longest]
            require_windows(
                divided[longest],
                context,
                horizon,
                name=f"{panel.name}, longest series {series.id!r}",
            )
    # a series without training rows has no scaler
    fits = [
        any(count.values()) and border.train[1] > 0
        for count, border in zip(counts, divided, strict=True)
    ]
    keep = [index for index, fit in enumerate(fits) if fit]
    dropped = [index for index, fit in enumerate(fits) if not fit]
    partial = [index for index in keep if not all(counts[index].values())]
    notes = _short_notes(panel, dropped, partial, context + horizon)
    kept = panel.with_series(tuple(panel.series[index] for index in keep))
    return kept, tuple(divided[index] for index in keep), notes


def _whole_series(
    panel: Panel, context: int, horizon: int, borders: Sequence[float | int] | None
) -> tuple[Panel, tuple[Borders, ...], tuple[str, ...]]:
    """Return the panel of the series that have a window, all their rows in the training part."""
    ends = [_borders_of(panel, one, context, borders).test[1] for one in range(panel.num_series)]
    keep = [one for one, end in enumerate(ends) if count_windows((0, end), context, horizon)]
    if not keep:
        longest = max(ends)
        raise DataError(
            f"{panel.name}: {longest} rows, but one window needs {context + horizon} (context "
            f"{context} + horizon {horizon}); bring more rows"
        )
    dropped = [one for one in range(panel.num_series) if one not in keep]
    notes = _short_notes(panel, dropped, [], context + horizon)
    whole = tuple(Borders((0, end), (end, end), (end, end)) for end in (ends[k] for k in keep))
    return panel.with_series(tuple(panel.series[one] for one in keep)), whole, notes


def _borders_of(
    panel: Panel, index: int, context: int, borders: Sequence[float | int] | None
) -> Borders:
    series = panel.series[index]
    try:
        return split_borders(series.num_rows, context, info=panel.info, borders=borders)
    except DataError as error:
        if panel.num_series == 1:
            raise
        raise DataError(f"series {series.id!r}: {error}; shares fit every length") from None


def _short_notes(
    panel: Panel, dropped: Sequence[int], partial: Sequence[int], needed: int
) -> tuple[str, ...]:
    def name(index: int) -> str:
        return f"{panel.series[index].id!r} ({panel.series[index].num_rows} rows)"

    notes: list[str] = []
    if dropped:
        notes.append(
            f"{len(dropped)} of {panel.num_series} series are left out, too short for a window of "
            f"{needed} rows in any part: {listed(dropped, name)}"
        )
    if partial:
        notes.append(
            f"{len(partial)} of {panel.num_series} series are too short for windows of {needed} "
            f"rows in every part and serve only some: {listed(partial, name)}"
        )
    return tuple(notes)


def _windows(
    values_RC: Float[Tensor, "R C"],
    marks_RM: Float[Tensor, "R M"],
    lengths: Sequence[int],
    parts: Sequence[Part],
    context: int,
    horizon: int,
    covariates: RowCovariates | None,
    observed_RC: Bool[Tensor, "R C"] | None,
    *,
    fill: bool,
) -> Windows:
    starts: list[Tensor] = []
    owners: list[Tensor] = []
    offset = 0
    for index, ((begin, end), length) in enumerate(zip(parts, lengths, strict=True)):
        count = count_windows((begin, end), context, horizon)
        starts.append(torch.arange(offset + begin, offset + begin + count))
        owners.append(torch.full((count,), index))
        offset += length
    places = torch.cat(starts), torch.cat(owners)
    return Windows(
        values_RC, marks_RM, *places, context, horizon, covariates, observed_RC, fill=fill
    )
