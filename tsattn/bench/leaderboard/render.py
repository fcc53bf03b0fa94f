"""From a folder of results to `leaderboard.md` and `leaderboard.html`.

Both say nothing of the moment or the machine of rendering, so the same results give the same bytes.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tsattn.bench.leaderboard.cells import Board, Cell, read_board
from tsattn.bench.leaderboard.facts import Facts, facts
from tsattn.bench.leaderboard.failures import Failed, failures
from tsattn.bench.leaderboard.forecast_plots import ForecastPlot, forecast_plots
from tsattn.bench.leaderboard.overview import overview, papers, standing
from tsattn.bench.leaderboard.places import Places
from tsattn.bench.leaderboard.plots import DotPlot, differences_plot, scores_plot
from tsattn.bench.leaderboard.published import SOURCES, TABLE2
from tsattn.bench.leaderboard.scored import scored
from tsattn.bench.leaderboard.sections import Network, Section, read_reasons, sections
from tsattn.bench.leaderboard.tables import FLOORS, Table

MARKER = "rendered by `tsattn leaderboard` from the folder of results; do not edit"
"""Stands in the first line of what is rendered, so that it may be rendered again."""


@dataclass(frozen=True)
class Content:
    """Everything that both renderings say."""

    overview: list[Table]
    standing: Table | None
    sections: list[Section]
    failed: list[Failed]
    left_out: int
    facts: Facts
    board: Board
    places: Places
    forecasts: dict[str, list[ForecastPlot]]


def content_of(results: Path, places: Places | None = None) -> Content:
    """Read a folder of results.

    Args:
        results: the folder.
        places: what links and commands call it, and where the leaderboard goes.

    Raises:
        DataError: no such folder, or a damaged file, by name and line.
    """
    board, places = read_board(results), places or Places()
    return Content(
        overview=overview(board),
        standing=standing(board),
        sections=sections(board, read_reasons(results), places),
        failed=failures(board, places),
        left_out=len(board.left_out),
        facts=facts(board),
        board=board,
        places=places,
        forecasts=forecast_plots(results),
    )


def markdown(content: Content) -> str:
    """Write the leaderboard as Markdown that GitHub shows."""
    return _rendered("leaderboard.md.j2", content)


def html(content: Content) -> str:
    """Write the leaderboard as one page that needs nothing beside it."""
    return _rendered("leaderboard.html.j2", content, plots=_plots)


def _rendered(name: str, content: Content, **more: Any) -> str:
    template = _environment().get_template(name)
    return template.render(content=content, marker=MARKER, source=SOURCES[TABLE2], **more)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _in_a_cell
    environment.filters["code"] = _code
    return environment


def _in_a_cell(text: str) -> str:
    """Write text so that a Markdown table keeps it within its cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    """Write text as Markdown code, whatever it holds."""
    return f"`{text.replace('`', chr(39))}`"


def _plots(content: Content, section: Section, network: Network) -> list[DotPlot]:
    """Return the dot plots of a model on a dataset."""
    if not any(cell.rows for cell in network.cells.values()):
        return []
    trained = next(cell.rows[0] for cell in network.cells.values() if cell.rows)
    others = {
        cell.model: cell
        for cell in content.board.others(section.dataset)
        if cell.rows and scored(cell.rows[0]) == scored(trained)
    }
    lines = {model: _mean(others[model]) for model in (*FLOORS, "dlinear") if model in others}
    shown = {model: mean for model, mean in lines.items() if mean is not None}
    title = f"{network.title} on {section.title}"
    plots = [scores_plot(title, network.cells, papers(network.cells), shown)]
    differences = differences_plot(f"{title}: paired differences", network.comparisons)
    return plots + ([differences] if differences else [])


def _mean(cell: Cell) -> float | None:
    return cell.mean()
