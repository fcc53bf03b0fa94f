"""Where training, validation and test begin and end: pure functions of row counts.

A part is a half-open range of rows. Validation and test begin ``context`` rows before their first
target row, so that their first window forecasts exactly that row; no target row belongs to two
parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tsattn.data.catalog import DatasetInfo
from tsattn.errors import DataError

DEFAULT_SHARES = (0.7, 0.1, 0.2)

Part = tuple[int, int]


@dataclass(frozen=True)
class Borders:
    """Row ranges [begin, end) of the three parts; validation and test include their context rows.

    Attributes:
        train: Rows for fitting the network and the scaler.
        val: Rows for choosing the checkpoint.
        test: Rows for the final score.
    """

    train: Part
    val: Part
    test: Part

    def parts(self) -> dict[str, Part]:
        """Return the parts by name, in time order."""
        return {"train": self.train, "val": self.val, "test": self.test}


def count_windows(part: Part, context: int, horizon: int) -> int:
    """Return the number of stride-1 windows: ``max(0, end - begin - context - horizon + 1)``."""
    begin, end = part
    return max(0, end - begin - context - horizon + 1)


def split_borders(
    num_rows: int,
    context: int,
    *,
    info: DatasetInfo | None = None,
    borders: Sequence[float | int] | None = None,
) -> Borders:
    """Divide rows in time order into training, validation and test.

    The borders are, in this order of preference, those asked for, the catalog's (ETT), or shares of
    70/10/20 with ``n_train = int(.7 n)``, ``n_test = int(.2 n)`` and the rest for validation.

    Args:
        num_rows: Rows of the series.
        context: Rows that validation and test begin before their first target row.
        info: Catalog row of the dataset; only its explicit borders matter.
        borders: Three increasing row ends ``[train_end, val_end, test_end]``, or three positive
            shares whose sum is at most 1.

    Returns:
        The three ranges. A part may be too short for a window: see `require_windows`.

    Raises:
        DataError: The borders overlap, decrease, or reach beyond the rows.

    Source: PROTOCOL section 2.
    """
    if borders is None and info is not None and info.borders is not None:
        borders = info.borders
    values = DEFAULT_SHARES if borders is None else tuple(borders)
    train_end, val_end, test_end = _row_ends(values, num_rows)
    return Borders(
        train=(0, train_end),
        val=(max(0, train_end - context), val_end),
        test=(max(0, val_end - context), test_end),
    )


def _row_ends(values: tuple[float | int, ...], num_rows: int) -> tuple[int, int, int]:
    shown = ", ".join(f"{value:.12g}" for value in values)
    if len(values) != 3:
        raise DataError(
            f"borders [{shown}] are {len(values)} numbers; expected three: row ends "
            "[train_end, val_end, test_end], or shares such as [0.7, 0.1, 0.2]"
        )
    if all(0 < value < 1 for value in values):
        return _ends_of_shares(values, num_rows, shown)
    if not all(float(value).is_integer() for value in values):
        raise DataError(
            f"borders [{shown}] are neither whole rows nor shares; expected three increasing row "
            "ends, or three shares between 0 and 1"
        )
    train_end, val_end, test_end = (int(value) for value in values)
    if not 0 < train_end < val_end < test_end:
        raise DataError(
            f"borders [{shown}] overlap or decrease; expected row ends with "
            "0 < train_end < val_end < test_end"
        )
    if test_end > num_rows:
        raise DataError(
            f"borders [{shown}] end at row {test_end}, but there are {num_rows} rows; "
            f"expected test_end <= {num_rows}"
        )
    return train_end, val_end, test_end


def _ends_of_shares(
    shares: tuple[float | int, ...], num_rows: int, shown: str
) -> tuple[int, int, int]:
    total = sum(shares)
    if total > 1 + 1e-9:
        raise DataError(
            f"borders [{shown}] are shares that sum to {total:g}, so the parts would overlap; "
            "expected a sum of at most 1"
        )
    train, val, test = shares
    num_train = int(num_rows * train)
    num_test = int(num_rows * test)
    # a sum of 1 leaves no row unused: the rounding goes to validation, as in the published split
    num_val = num_rows - num_train - num_test if total > 1 - 1e-9 else int(num_rows * val)
    return num_train, num_train + num_val, num_train + num_val + num_test


def require_windows(borders: Borders, context: int, horizon: int, *, name: str) -> None:
    """Raise where a part has no room for a single window.

    Args:
        borders: Row ranges of the parts.
        context: Rows that a window shows to the network.
        horizon: Rows that it forecasts.
        name: Name of the data, for the message.

    Raises:
        DataError: A part is too short; the message has the rows it has and those it needs.
    """
    needed = context + horizon
    for label, part in borders.parts().items():
        if count_windows(part, context, horizon) == 0:
            begin, end = part
            raise DataError(
                f"{name}: the {label} part has {end - begin} rows [{begin}, {end}), but one window "
                f"needs {needed} (context {context} + horizon {horizon}); shorten --data.context "
                "or --data.horizon, move --data.borders, or bring more rows"
            )
