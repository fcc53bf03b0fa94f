"""One page on what a run's mixtures of experts did; it loads nothing from elsewhere."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from tsattn.errors import ConfigError
from tsattn.models import ForecastNetwork
from tsattn.training.checkpoint import RECORD, load_network, read_checkpoint
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder
from tsattn.training.reopened import data_of, settings_of
from tsattn.training.routing import describe_mixtures, mixtures, short_name
from tsattn.training.routing_sections import Section, epoch_sections, served_sections
from tsattn.training.routing_table import Row, read_rows
from tsattn.training.served import expert_names, serve_test
from tsattn.training.svg import percent

_STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #222;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .6rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0; max-width: 50rem; }
p.finding { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
dt { color: #666; }
dd { margin: 0; overflow-wrap: anywhere; }
img { width: 100%; height: auto; margin-top: .6rem; }
table { border-collapse: collapse; margin-top: .6rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { color: #666; font-weight: 400; }
"""


class FinishedRun(NamedTuple):
    """A run whose mixtures can be looked at.

    Attributes:
        result: its ``result.json``.
        rows: its ``routing.csv``.
        network: the network of its best checkpoint.
        data: its data.
    """

    result: dict[str, Any]
    rows: list[Row]
    network: ForecastNetwork
    data: ForecastData


def finished_run(folder: RunFolder) -> FinishedRun:
    """Read a run.

    Raises:
        ConfigError: the folder is none of a run, the run is not finished, or has no mixtures.
        CheckpointError: its best checkpoint cannot be read.
        DataError: its data cannot be read.
    """
    settings = settings_of(folder)
    if not folder.result.is_file():
        raise ConfigError(
            f"the run in {folder.path} is not finished: it has no {folder.result.name}; go on with "
            f"it by tsattn fit --config {folder.config} --ckpt_path last"
        )
    result = folder.read_result()
    if "refit_of" in result:
        raise ConfigError(
            f"{folder.path} was trained on all rows, so no test windows are left to look at; the "
            f"validated run has them: tsattn moe report {result['refit_of']}"
        )
    if "moe" not in result:
        raise ConfigError(
            f"the {result['network']['class']} in {folder.path} has no mixtures of experts, so "
            "there is no routing to report; train one with --model.network.feedforward MoE"
        )
    data = data_of(settings)
    data.compare(read_checkpoint(folder.best)[RECORD]["data"] or {})
    return FinishedRun(result, read_rows(folder.routing), load_network(folder.best), data)


def routing_page(folder: RunFolder) -> str:
    """Return the page of a finished run.

    Raises:
        ConfigError: as `finished_run`.
        MissingExtraError: matplotlib is not installed.
    """
    run = finished_run(folder)
    experts = {name: expert_names(layer.experts) for name, layer in mixtures(run.network)}
    sizes = {name: (layer.num_experts, layer.top_k) for name, layer in mixtures(run.network)}
    sections = [
        *epoch_sections(run.rows, experts, sizes, run.result["best_epoch"]),
        *served_sections(serve_test(run.network, run.data), run.network, run.data),
    ]
    network, dataset = run.result["network"]["class"], run.result["dataset"]["name"]
    return _page(
        f"Who did the work: the experts of {network} on {dataset}",
        _facts(run, folder),
        _table(run.result["moe"]),
        sections,
    )


def _facts(run: FinishedRun, folder: RunFolder) -> list[tuple[str, str]]:
    result, test = run.result, run.result["test"]
    dataset, training, versions = result["dataset"], result["training"], result["versions"]
    floors = {n.replace("_", " "): s["mse"] for n, s in result["floors"].items() if s}
    floor = min(floors, key=lambda name: floors[name])
    activation = result["network"]["arguments"].get("value_activation")
    facts = [
        ("run", str(folder.path)),
        (
            "network",
            f"{result['network']['class']}, {result['parameters']:,} parameters"
            + (f", value activation {activation}" if activation else ""),
        ),
        ("mixtures", describe_mixtures(run.network).partition(": ")[2]),
        (
            "data",
            f"{dataset['name']} (sha256 {dataset['sha256'][:8]}), {dataset['rows']:,} rows of "
            f"{dataset['channels']} channels; context {result['context']} steps, horizon "
            f"{result['horizon']}",
        ),
        (
            "training",
            f"{result['epochs']} epochs, the best one {result['best_epoch']} "
            f"({result['checkpoint_rule']}); {result['train_windows']:,} windows, batch size "
            f"{training['batch_size']}, seed {result['seed']}, {result['wall_seconds']:,.0f} s",
        ),
        (
            "test",
            f"MSE {test['mse']:.4f}, MAE {test['mae']:.4f} over {test['windows_scored']:,} windows"
            + (f", {test['windows_dropped']:,} left out" if test["windows_dropped"] else "")
            + f"; the best trivial forecast ({floor}) has MSE {floors[floor]:.4f}",
        ),
        (
            "made with",
            f"tsattn {versions['tsattn']} (commit {(result['commit'] or 'unknown')[:8]}), torch "
            f"{versions['torch']}, {result['precision']}, {result['device']}, "
            f"{result['threads']} {'thread' if result['threads'] == 1 else 'threads'}",
        ),
    ]
    if result["limits"]:
        cuts = ", ".join(f"{name} {value}" for name, value in result["limits"].items())
        facts.append(("cut short by", cuts))
    return facts


def _table(layers: Sequence[dict[str, Any]]) -> str:
    """Return the table of what the best checkpoint did on all test windows."""
    columns = ["", "least load", "greatest load", "entropy of the load", "last change rate"]
    competes = any("router_agreement" in part for part in layers)
    lines = [[*columns, "last agreement with the winners"] if competes else columns]
    for part in layers:
        cells = [
            short_name(part["layer"]),
            percent(min(part["load"])),
            percent(max(part["load"])),
            f"{part['selection_entropy']:.2f} of {np.log2(len(part['load'])):.3g} bits",
        ]
        for measure in ("change_rate", "router_agreement")[: 1 + competes]:
            cells.append(f"{100 * part[measure]:.1f} %" if measure in part else "-")
        lines.append(cells)
    rows = [
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
        for tag, cells in zip(["th"] + ["td"] * len(layers), lines, strict=True)
    ]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _page(
    title: str, facts: Sequence[tuple[str, str]], table: str, sections: Sequence[Section]
) -> str:
    listed = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    parts = "\n".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"<dl>\n{listed}\n</dl>\n<h2>On the test windows</h2>\n"
        f"<p>What the best checkpoint did with the tokens of all test windows. A load is the share "
        f"of a layer's slots; every token fills as many slots as it has experts.</p>\n{table}\n"
        f"{parts}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    text = f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.reading)}</p>\n"
    if section.finding:
        text += f'<p class="finding">{escape(section.finding)}</p>\n'
    if section.svg:
        picture = base64.b64encode(section.svg.encode()).decode()
        source = f"data:image/svg+xml;base64,{picture}"
        text += f'<img src="{source}" alt="{escape(section.title)}">\n'
    return text
