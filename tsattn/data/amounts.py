"""Numbers and lists of things as people write them."""

from collections.abc import Callable, Sequence
from typing import Any

_SAME = frozenset({"series"})  # one or many


def plural(number: int, noun: str) -> str:
    """Write a noun for a number of things: ``channel`` for 1, else ``channels``."""
    return noun if number == 1 or noun in _SAME else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 row``, ``2 rows``, ``3 series``."""
    return f"{number} {plural(number, noun)}"


def listed(
    things: Sequence[Any], show: Callable[[Any], str] = str, *, most: int = 5, between: str = ", "
) -> str:
    """List things as far as people read: ``a, b and 3 more``.

    Args:
        things: any number of them.
        show: how one is written; names that are quoted take ``repr``.
        most: how many are shown.
        between: what stands between two.
    """
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return between.join(show(one) for one in things[:most]) + more


def quoted(names: Sequence[str]) -> str:
    """List names in quotes: ``'a', 'b' and 3 more``, eight at most."""
    return listed(names, repr, most=8)
