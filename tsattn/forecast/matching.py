"""Names of new data and names that a network was trained on."""

from collections.abc import Sequence

from tsattn.data.amounts import quoted
from tsattn.data.frames import LONG_COLUMNS
from tsattn.errors import DataError
from tsattn.forecast.trained import Trained


def match(
    names: Sequence[str], trained: Trained, label: str, *, new_series: bool, columns: bool = False
) -> tuple[int | None, ...]:
    """Return for each name its place among the trained ones, None for a new one.

    All channels have to be there, since a network sees them together; of the series of a long
    training any will do.

    Args:
        names: those of the new data, in any order.
        trained: what the network was trained on.
        label: what messages call the data.
        new_series: whether new names are welcome, and channels may lack.
        columns: whether the names are columns, of which some can be left out.

    Raises:
        DataError: with the names that are missing and those that are not known.
    """
    places = {name: place for place, name in enumerate(trained.names)}
    found = tuple(places.get(name) for name in names)
    if new_series:
        return found
    extra = [name for name in names if name not in places]
    absent = set(places) - set(names) if trained.layout == "wide" else ()
    missing = [name for name in trained.names if name in absent]
    plural = "channels" if trained.layout == "wide" else "series"
    problems = [f"{plural} missing: {quoted(missing)}"] if missing else []
    if extra:
        problems.append(f"not trained on: {quoted(extra)}")
    if problems:
        choose = "" if missing or not columns else ", leave them out with --targets"
        raise DataError(
            f"{label}: {'; '.join(problems)}. The network was trained on the {plural} "
            f"{quoted(trained.names)}; rename or remove columns{choose}, or forecast what it "
            f"never saw with --new-series (new_series=True){_hint(extra, trained.names)}"
        )
    return found


def _hint(extra: Sequence[str], known: Sequence[str]) -> str:
    is_long = any(name.casefold() in LONG_COLUMNS for name in extra)
    for name in extra:
        for other in (name.removesuffix(".0"), f"{name}.0"):
            if other != name and other in known:
                return (
                    f". {name!r} and {other!r} are one number, written as an integer and with a "
                    "fraction: convert them, for example with astype(int)"
                )
    return ". A long table has the columns unique_id, ds and y" if is_long else ""
