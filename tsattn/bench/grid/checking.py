"""Whether the settings of cells can be read, before hours go into the first of them."""

from collections.abc import Iterable

from tsattn.bench.grid.cells import Cell
from tsattn.training.parsed import ParsedRecipe, refusals_of


def require_parsable(cells: Iterable[Cell]) -> None:
    """Read the settings of every configuration once, as its run will.

    Raises:
        ConfigError: a setting or a network that does not exist, or a value that cannot be one.
    """
    for cell in {(c.key.model, c.key.config_hash): c for c in cells}.values():
        with refusals_of(f"{cell.key.model} {cell.key.dataset}"):
            ParsedRecipe(cell.words[1:])
