"""Numbers of things as people write them."""

_SAME = frozenset({"series"})  # one or many


def plural(number: int, noun: str) -> str:
    """Write a noun for a number of things: ``channel`` for 1, else ``channels``."""
    return noun if number == 1 or noun in _SAME else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 row``, ``2 rows``, ``3 series``."""
    return f"{number} {plural(number, noun)}"
