"""A table of cells, filled by many runs: `tsattn bench run` and `tsattn bench plan`."""
