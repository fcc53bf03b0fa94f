"""What the server imports once, for all cells that are forked from it."""

from importlib import import_module

import tsattn.bench.grid.cell
import tsattn.bench.grid.worker  # noqa: F401

for _picture in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
    try:
        import_module(_picture)
    except ImportError:  # the cells do without pictures
        break
