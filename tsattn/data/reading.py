"""How to read a user's own file where its content does not decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tsattn.errors import ConfigError

Layout = Literal["wide", "long"]
Missing = Literal["error", "interpolate", "mask"]
Duplicates = Literal["error", "first", "last", "mean"]
Gaps = Literal["error", "regularise"]


@dataclass(frozen=True)
class Reading:
    """Answers to what a file cannot always say itself; None recognises it from the content.

    Attributes:
        delimiter: Sign between cells: ``,`` ``;`` ``|`` or ``tab``.
        decimal: Decimal sign, ``.`` or ``,``.
        day_first: Whether 03/04/2020 is the third of April.
        time_column: Header of the time column.
        layout: ``wide`` (a time column, then channels) or ``long`` (``unique_id, ds, y``).
        missing: What to do with missing values, see `tsattn.data.treatment.Treatment`. None of this
            and the next three means an error in training, and in a forecast what was done in its
            training.
        duplicates: What to do with rows that share a timestamp.
        gaps: What to do where rows are missing.
        time_zone: Zone of local timestamps.
        covariates: Columns beside those to forecast; True and False in them count as 1 and 0.
        targets: Columns to forecast; what is neither target nor covariate is not read. None of them
            means all columns that are no covariates.
    """

    delimiter: str | None = None
    decimal: str | None = None
    day_first: bool | None = None
    time_column: str | None = None
    layout: Layout | None = None
    missing: Missing | None = None
    duplicates: Duplicates | None = None
    gaps: Gaps | None = None
    time_zone: str | None = None
    covariates: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a text in the place of several names."""
        column_names(self.targets, "targets")


def column_names(given: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Return names of columns as a tuple.

    Args:
        given: the names; None are none.
        what: what messages call them.

    Raises:
        ConfigError: one text, whose letters would be taken for names.
    """
    if isinstance(given, str):
        raise ConfigError(f"{what} are several names, got {given!r}; write [{given!r}]")
    return tuple(given or ())
