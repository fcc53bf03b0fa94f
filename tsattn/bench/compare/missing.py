"""What a reader of a comparison should know where targets are missing."""

from collections.abc import Sequence

from tsattn.bench.compare.errors import ErrorsOfRun
from tsattn.data.amounts import counted, listed


def notes_on_missing(errors: ErrorsOfRun, channels: Sequence[str]) -> list[str]:
    """Say how much of the test part was observed, and what has no target at all.

    Args:
        errors: of any run; all sides have the same targets.
        channels: their names.
    """
    observed_WC, observed_WH = errors.channels.observed_WP, errors.steps.observed_WP
    windows, horizon = observed_WH.shape
    share = observed_WC.sum() / (observed_WC.size * horizon)
    if share == 1:
        return []
    notes = [f"{100 * (1 - share):.3g} % of the test targets are missing and are not scored"]
    empty = int((~observed_WC.any(axis=1)).sum())
    if empty:
        notes.append(f"{empty} of {counted(windows, 'window')} have no observed target")
    for what, names, observed_WP in (
        ("channels", channels, observed_WC),
        ("steps", range(1, horizon + 1), observed_WH),
    ):
        counts = observed_WP.sum(axis=0).tolist()
        unseen = [name for name, count in zip(names, counts, strict=True) if not count]
        if unseen:
            notes.append(
                f"{what} without any observed target, and so without a score: {listed(unseen)}"
            )
    return notes
