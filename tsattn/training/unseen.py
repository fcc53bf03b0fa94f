"""Which rows a checkpoint has seen: scores of those would say nothing."""

from collections.abc import Mapping
from typing import Any, Literal

from tsattn.data import Prepared
from tsattn.data.amounts import counted
from tsattn.errors import ConfigError

Part = Literal["val", "test"]
"""What is scored."""


def require_unseen(trained: Mapping[str, Any], now: Prepared, part: Part, what: str) -> None:
    """Refuse to score a checkpoint on rows that it was trained on, or chosen by.

    Rows are compared where both have read the same file. Of the test part neither training nor
    validation rows of the checkpoint may be scored, of the validation part no training rows.

    Args:
        trained: what the checkpoint's record says of its data; empty for a network without
            training.
        now: the data that is to be scored.
        part: ``val`` or ``test``.
        what: what is refused, to end the message with.

    Raises:
        ConfigError: some rows to be scored were seen.
    """
    if trained.get("sha256") != now.panel.sha256:
        return
    if seen := _seen_rows(trained, now, part):
        raise ConfigError(
            f"of the {_CALLED[part]} part of {now.panel.name} this checkpoint was {_SEEN[part]} "
            f"{counted(seen, 'row')}, so {what}; give the --data.borders that it was trained with, "
            "as in the config.yaml of its run"
        )


_BEFORE = {"val": 0, "test": 1}  # the last part that has been seen
_CALLED = {"val": "validation", "test": "test"}
_SEEN = {"val": "trained on", "test": "trained on or chosen by"}


def _seen_rows(trained: Mapping[str, Any], now: Prepared, part: Part) -> int:
    """Count the target rows of a part that lie before the end of what the checkpoint has seen."""
    seen = _BEFORE[part]
    ends = {
        series: parts[seen][1]
        for series, parts in zip(trained["series"], trained["borders"], strict=True)
    }
    count = 0
    for series, border in zip(now.panel.ids, now.borders, strict=True):
        parts = list(border.parts().values())
        first, last = parts[seen][1], parts[seen + 1][1]
        count += max(0, min(ends.get(series, 0), last) - first)
    return count
