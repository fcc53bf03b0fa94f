"""Where the rows lie and where the leaderboard goes: for links and for commands to paste."""

import os
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from tsattn.resources import configs_dir


@dataclass(frozen=True)
class Places:
    """Paths as they were typed.

    Attributes:
        results: folder of the rows.
        out: the Markdown file.
    """

    results: Path = Path("results")
    out: Path = Path("leaderboard.md")

    def link(self, target: str | Path) -> str:
        """Return the path of a file or folder as seen from the Markdown file."""
        return Path(os.path.relpath(target, self.out.parent)).as_posix()

    def run(self, protocol: str, model: str) -> str:
        """Return the command that runs the cells of a model.

        Of a protocol that no shipped grid has, the grid's file is for the reader to put in.
        """
        grid = shipped_grids().get((protocol, model), "GRID.yaml")
        folder = "" if self.results == Path("results") else f" --results {_quoted(self.results)}"
        return f"tsattn bench run --grid {grid}{folder}"


@cache
def shipped_grids() -> dict[tuple[str, str], str]:
    """Return the shipped grid of every protocol and model."""
    found: dict[tuple[str, str], str] = {}
    for file in sorted((configs_dir() / "bench").glob("*.yaml")):
        grid = yaml.safe_load(file.read_text(encoding="utf-8"))
        for model in grid["models"]:
            found.setdefault((grid["protocol"], model), f"configs/bench/{file.name}")
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(path.as_posix())
