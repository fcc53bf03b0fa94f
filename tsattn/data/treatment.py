"""What is done with values that are missing and with timestamps that are not regular."""

import zoneinfo
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args

from tsattn.data.reading import Duplicates, Gaps, Missing, Reading
from tsattn.errors import ConfigError

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "missing": get_args(Missing),
    "duplicates": get_args(Duplicates),
    "gaps": get_args(Gaps),
}


@dataclass(frozen=True)
class Treatment:
    """A policy for missing values and irregular timestamps; by default everything is refused.

    Attributes:
        missing: ``error``; ``interpolate``: every window fills the gaps of its own context, linear
            between observed steps and with the nearest one at both ends; ``mask``: networks are
            told which steps were observed. Missing targets are never scored.
        duplicates: ``error``, or of rows with the same timestamp keep the ``first``, the ``last``
            or the ``mean``.
        gaps: ``error``, or ``regularise``: insert the rows that lack, without values.
        time_zone: the zone of local timestamps, such as ``Europe/Berlin``; None takes timestamps as
            they are.

    Raises:
        ConfigError: an unknown word or zone, or ``regularise`` without a policy for the values that
            inserted rows do not have.
    """

    missing: Missing = "error"
    duplicates: Duplicates = "error"
    gaps: Gaps = "error"
    time_zone: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}; expected one of {', '.join(choices)}"
                )
        if self.gaps == "regularise" and self.missing == "error":
            raise ConfigError(
                "gaps regularise inserts rows without values, so missing values need a policy: set "
                "--data.missing interpolate or --data.missing mask"
            )
        if self.time_zone is not None:
            _require_zone(self.time_zone)

    @classmethod
    def of(cls, reading: Reading, default: Self | None = None) -> Self:
        """Return what the user has said, and ``default`` where he has said nothing.

        Raises:
            ConfigError: the parts do not go together.
        """
        base = asdict(default or cls())
        said = {field.name: getattr(reading, field.name) for field in fields(cls)}
        return cls(**base | {name: value for name, value in said.items() if value is not None})

    @property
    def takes_missing(self) -> bool:
        """Whether values may be missing."""
        return self.missing != "error"


@dataclass(frozen=True)
class Treated:
    """What was done to data.

    Attributes:
        missing: values that were not there, those of inserted rows included.
        values: all values, missing ones included.
        merged: rows that were merged into another one with the same timestamp.
        inserted: rows that were inserted.
    """

    missing: int = 0
    values: int = 0
    merged: int = 0
    inserted: int = 0

    def __add__(self, other: "Treated") -> "Treated":
        """Add up what was done to several series."""
        mine, theirs = asdict(self), asdict(other)
        return Treated(**{name: mine[name] + theirs[name] for name in mine})

    def notes(self, treatment: Treatment) -> tuple[str, ...]:
        """Return in words what was done; nothing where nothing was."""
        found: list[str] = []
        if self.merged:
            found.append(
                f"duplicate timestamps: {self.merged} row(s) merged, {treatment.duplicates} kept"
            )
        if self.inserted:
            found.append(f"gaps: {self.inserted} row(s) inserted")
        if self.missing:
            done = "interpolated" if treatment.missing == "interpolate" else "masked"
            share = 100 * self.missing / max(1, self.values)
            found.append(f"missing values: {self.missing} of {self.values} ({share:.2g}%) {done}")
        return tuple(found)


STRICT = Treatment()
"""Nothing is done: everything irregular is refused."""

UNTOUCHED = Treated()
"""Nothing was done."""


def describe_treatment(treatment: Treatment, treated: Treated) -> dict[str, Any]:
    """Return policy and outcome in plain values, as checkpoints and results keep them."""
    return {**asdict(treatment), "done": asdict(treated)}


def treatment_from(description: Mapping[str, Any] | None) -> Treatment:
    """Return the policy that `describe_treatment` wrote; the default for older checkpoints.

    Raises:
        ConfigError: the policy is none.
    """
    if description is None:
        return Treatment()
    return Treatment(**{f.name: description[f.name] for f in fields(Treatment)})


def _require_zone(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        near = sorted(z for z in zoneinfo.available_timezones() if name.casefold() in z.casefold())
        hint = f" (nearest: {', '.join(near[:3])})" if near and name else ""
        raise ConfigError(
            f"unknown time zone {name!r}{hint}; expected a name such as Europe/Berlin or UTC"
        ) from error
