"""The study as a page: the same tables, and plots to look into."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import TrialState

from tsattn.errors import MissingExtraError
from tsattn.files import write_atomically
from tsattn.tune.repeats import Comparison
from tsattn.tune.storage import quiet

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
caption { text-align: left; font-weight: bold; padding: .3em 0; }
"""


def write_report(
    path: Path, study: Study, summary: Mapping[str, Any], compared: Sequence[Comparison]
) -> None:
    """Write the page: one file that needs nothing else, not even a network.

    Args:
        path: of the page.
        study: the study.
        summary: what it has found.
        compared: the repeats, if there were any.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        import plotly.io
    except ImportError as error:
        raise MissingExtraError(
            "the report needs plotly: pip install 'tsattn[plots]', and the same command again"
        ) from error
    parts = [
        f"<h1>{html.escape(summary['study'])}</h1>",
        f"<p>Objective: {html.escape(summary['objective'])}.</p>",
        *_tables(summary),
    ]
    with quiet():
        figures = list(_figures(study, summary, compared))
    for number, figure in enumerate(figures):
        script = number == 0  # the library once, in the page itself
        parts.append(plotly.io.to_html(figure, include_plotlyjs=script, full_html=False))
    body, title = "\n".join(parts), html.escape(summary["study"])
    write_atomically(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
    )


def _figures(
    study: Study, summary: Mapping[str, Any], compared: Sequence[Comparison]
) -> Iterator[Any]:
    import optuna.visualization as plots
    import plotly.graph_objects as go

    for name, rows in summary["distribution"].items():
        figure = go.Figure(layout_title_text=f"Validation loss by {name}, whole trials")
        for choice, row in rows.items():
            figure.add_trace(go.Box(y=row["losses"], name=choice, boxpoints="all"))
        yield figure.update_layout(yaxis_title="best validation loss", showlegend=False)
    if any(comparison.differences for comparison in compared):
        yield _intervals(compared)
    drawn: list[Callable[[Study], Any]] = [plots.plot_optimization_history]
    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        drawn += [plots.plot_intermediate_values, plots.plot_parallel_coordinate, plots.plot_slice]
    if len(summary["importance"] or ()) > 1:
        drawn.append(plots.plot_param_importances)
    for draw in (*drawn, plots.plot_timeline):
        yield draw(study)


def _intervals(compared: Sequence[Comparison]) -> Any:
    """Draw the mean difference of each contender to the reference, with its interval."""
    import plotly.graph_objects as go

    (beside,) = [c.contender.label for c in compared if c.is_reference]
    figure = go.Figure(layout_title_text=f"Repeated seeds: validation loss less that of {beside}")
    shown = [comparison for comparison in compared if comparison.differences]
    middle = [sum(c.differences.values()) / len(c.differences) for c in shown]
    low = [m if c.low is None else c.low for c, m in zip(shown, middle, strict=True)]
    high = [m if c.high is None else c.high for c, m in zip(shown, middle, strict=True)]
    figure.add_trace(
        go.Scatter(
            x=middle,
            y=[comparison.contender.label for comparison in shown],
            mode="markers",
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [end - m for end, m in zip(high, middle, strict=True)],
                "arrayminus": [m - end for end, m in zip(low, middle, strict=True)],
            },
        )
    )
    return figure.add_vline(x=0.0, line_dash="dot")


def _tables(summary: Mapping[str, Any]) -> Iterator[str]:
    if best := summary["best"]:
        rows = [("best validation loss", best["validation_loss"]), *best["values"].items()]
        rows += [(name, best[name]) for name in ("seed", "best_epoch", "epochs")]
        yield _table(f"Best: trial {best['trial']}, {best['because']}", ("setting", "value"), rows)
    if len(summary["importance"] or ()) > 1:  # a single one has it all
        yield _table(
            "Importance (PED-ANOVA)", ("parameter", "share"), summary["importance"].items()
        )
    for name, choices in summary["distribution"].items():
        columns = ("complete", "pruned", "failed", "best", "quarter", "median", "three_quarters")
        rows = [(choice, *(row[c] for c in columns)) for choice, row in choices.items()]
        yield _table(f"Validation loss by {name}, whole trials", (name, *columns), rows)
    if summary["repeats"]:
        columns = ("mean", "deviation", "difference", "low", "high", "verdict")
        rows = [
            (r["choice"], len(r["losses"]), *(r[c] for c in columns)) for r in summary["repeats"]
        ]
        caption = "The best settings of each again, paired by seed"
        caption += f". {summary['ranking']}" if summary["ranking"] else ""
        yield _table(caption, ("choice", "seeds", *columns), rows)
    if summary["failed"]:
        rows = [(f["trial"], str(f["values"]), f["reason"]) for f in summary["failed"]]
        yield _table("Trials that failed", ("trial", "values", "reason"), rows)


def _table(caption: str, columns: Sequence[str], rows: Any) -> str:
    def cell(value: Any) -> str:
        shown = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
        return f"<td>{html.escape(shown)}</td>"

    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption>\n<tr>{head}</tr>\n{body}\n</table>"
