"""How to read a user's own file where its content does not decide."""

from dataclasses import dataclass

from tsattn.data.panel import Layout


@dataclass(frozen=True)
class Reading:
    """Answers to what a file cannot always say itself; None recognises it from the content.

    Attributes:
        delimiter: Sign between cells: ``,`` ``;`` ``|`` or ``tab``.
        decimal: Decimal sign, ``.`` or ``,``.
        day_first: Whether 03/04/2020 is the third of April.
        time_column: Header of the time column.
        layout: ``wide`` (a time column, then channels) or ``long`` (``unique_id, ds, y``).
        covariates: Columns beside those to forecast; True and False in them count as 1 and 0.
    """

    delimiter: str | None = None
    decimal: str | None = None
    day_first: bool | None = None
    time_column: str | None = None
    layout: Layout | None = None
    covariates: tuple[str, ...] = ()
