"""Windows of a backtest whose rows the network has already seen in its training."""

import hashlib
from pathlib import Path

import numpy as np

from tsattn.data.grid import num_missing
from tsattn.data.own import frame_sha256
from tsattn.data.zones import clocks
from tsattn.forecast.history import History
from tsattn.forecast.sources import Frame, Source
from tsattn.forecast.trained import Trained


def seen_notes(
    frame: Frame,
    source: Source,
    history: History,
    trained: Trained,
    windows: int,
    step: int,
    *,
    refitted: bool = False,
) -> tuple[str, ...]:
    """Say how many windows forecast rows that the network was trained or validated on.

    That is known only where the data are, byte for byte, those of the training; else, and where all
    windows lie behind those rows, there is nothing to say.

    Args:
        frame: the frame or file as it was given.
        source: the same, opened, with all its rows.
        history: the rows of all windows.
        trained: what the network was trained on.
        windows: how many windows.
        step: rows between two.
        refitted: whether each window has a network of its own, trained on the rows before it; then
            only the number of epochs and the residuals of intervals come from later rows.
    """
    if not trained.sha256 or trained.sha256 != _sha256(frame, source):
        return ()
    fitted, chosen = _seen(history, trained, windows, step)
    if not fitted and not chosen:
        return ()
    if refitted:
        return (
            f"{fitted + chosen} of {windows} windows forecast rows that lie before the end of the "
            "validation part, which chose the number of epochs (and gave intervals, where there "
            "are any, their residuals); their scores may be too good",
        )
    told = [f"{fitted} of {windows} windows forecast rows that the network was trained on"]
    if not fitted:
        told = [f"{chosen} of {windows} windows forecast rows that the network was validated on"]
    elif chosen:
        told.append(f"{chosen} more rows that it was validated on")
    return (f"{', '.join(told)}; their scores are too good",)


def _sha256(frame: Frame, source: Source) -> str:
    if isinstance(frame, (str, Path)):
        return hashlib.sha256(Path(frame).expanduser().read_bytes()).hexdigest()
    return frame_sha256(source.table)


def _seen(history: History, trained: Trained, windows: int, step: int) -> tuple[int, int]:
    """Return how many windows forecast training rows, and how many of the others validation."""
    targets_W = np.arange(windows) * step + trained.context
    fitted_W, chosen_W = np.zeros(windows, dtype=bool), np.zeros(windows, dtype=bool)
    lengths = _lengths(history, trained)
    for name, known in enumerate(history.known):
        series = 0 if trained.layout == "wide" else known
        if known is None or series is None or series >= len(trained.seen):
            continue
        length = lengths[name * len(lengths) // len(history.known)]
        rows_W = length - history.rows_KN.shape[1] + targets_W
        train_end, val_end = trained.seen[series]
        fitted_W |= rows_W < train_end
        chosen_W |= rows_W < val_end
    return int(fitted_W.sum()), int((chosen_W & ~fitted_W).sum())


def _lengths(history: History, trained: Trained) -> list[int]:
    """Return the rows of every series, counted as the training did after its treatment."""
    treatment, lengths = trained.treatment, list[int]()
    for one in history.tails.merged:
        own = history.times[one.rows]
        if treatment.duplicates != "error":
            own = own.unique()
        lacking = 0
        if treatment.gaps == "regularise":
            counts = (num_missing(clock, trained.step) for clock in clocks(own))
            lacking = next((count for count in counts if count is not None), 0)
        lengths.append(len(own) + lacking)
    return lengths
