"""Whether other rows are of the kind that a run was validated on."""

from collections.abc import Mapping, Sequence
from typing import Any

from tsattn.data.amounts import counted, quoted
from tsattn.data.steps import decode_step, step_text
from tsattn.errors import ConfigError


def require_same_kind(validated: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse data about which the validation says nothing.

    Layout, step, channels (in any order) and covariates have to be those of the validated run; of a
    long file at least one series has to be.

    Args:
        validated: what the checkpoint's record says of its data.
        now: the same of the data to train on.

    Raises:
        ConfigError: with what differs.
    """
    differ = _differences(validated, now)
    if differ:
        raise ConfigError(
            f"{now['name']} is not the data that the run was validated on: {'; '.join(differ)}. A "
            "refit keeps that run's scores and intervals; train on other data with tsattn fit"
        )


def notes_on_series(validated: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """Say which series of a long file were not validated, or are no longer trained on."""
    if now["layout"] != "long":
        return ()
    new, gone = _apart(validated["series"], now["series"])
    notes = []
    if new:
        count = counted(len(new), "series")
        notes.append(f"{count} not validated, so without intervals: {quoted(new)}")
    if gone:
        count = counted(len(gone), "series")
        notes.append(f"{count} of the validated run not in this file: {quoted(gone)}")
    return notes


def _differences(validated: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if validated["layout"] != now["layout"]:
        return [f"a {now['layout']} file instead of a {validated['layout']} one"]
    found = []
    if _step(validated) != _step(now):
        found.append(f"its rows are {_step(now)} apart and not {_step(validated)}")
    new, gone = _apart(validated["channels"], now["channels"])
    if new:
        found.append(f"it has {quoted(new)} too")
    if gone:
        found.append(f"it lacks {quoted(gone)}")
    if (validated.get("covariates") or None) != (now.get("covariates") or None):
        found.append("it has other covariates")
    if now["layout"] == "long" and not set(validated["series"]) & set(now["series"]):
        found.append(f"it has no series of that run, such as {quoted(validated['series'][:1])}")
    return found


def _step(data: Mapping[str, Any]) -> str:
    if data.get("integers"):
        return f"{data['step_seconds']:g} of a count"
    return step_text(decode_step(data["step"]))


def _apart(then: Sequence[str], now: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what is new, and what is gone, in order."""
    known, here = set(then), set(now)
    return [one for one in now if one not in known], [one for one in then if one not in here]
