"""The model card of an export: Markdown with a YAML header, as model hubs show it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tsattn.data.amounts import listed
from tsattn.data.catalog import CATALOG
from tsattn.data.steps import step_text
from tsattn.forecast.trained import Trained
from tsattn.training.conformal import RECORD_KEY, Calibration, without_intervals

_SHOWN = 20
_PROTOCOL = (
    "Test windows begin at every row of the test part, none is dropped for want of a full batch. "
    "Errors are those of standardised values (mean and deviation of the training rows, ddof 0). "
    "Rows were cut into training, validation and test part in time order; the checkpoint is the "
    "one with the {rule}, and the test part chose nothing."
)
_FLOORS = {"last_value": "last value", "seasonal_naive": "seasonal naive", "window_mean": "mean"}


def model_card(
    name: str,
    record: Mapping[str, Any],
    trained: Trained,
    result: Mapping[str, Any] | None,
    onnx: Mapping[str, Any] | None,
) -> str:
    """Return the card.

    Args:
        name: what the export is called: its folder's name.
        record: of the checkpoint.
        trained: the same record's data, checked.
        result: of the run, with scores and hardware; None where only a checkpoint is left.
        onnx: what ``model.onnx`` takes and how it was checked, where it was written.
    """
    sections = [
        f"# {_cell(name)}",
        _summary(record, trained),
        "## How to load it\n\n" + _loading(name, onnx),
        "## Data\n\n" + _data(record, trained, result),
        "## Scores\n\n" + _scores(record, trained, result),
        *_refitted(record),
        "## Recipe\n\n" + _recipe(record, result),
        "## Machine and versions\n\n" + _machine(result),
        "## Limits\n\n" + _limits(record, trained, result),
    ]
    return f"---\n{_header(name, record, result)}---\n\n" + "\n\n".join(sections) + "\n"


def _header(name: str, record: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    kind, data = str(record["network"]["class"]), str(record["data"].get("name", "own data"))
    header: dict[str, Any] = {
        "library_name": "tsattn",
        "pipeline_tag": "time-series-forecasting",
        "tags": ["time-series", "forecasting", "tsattn", kind.lower()],
        "metrics": ["mse", "mae"],
    }
    if data in CATALOG:
        header["datasets"] = [data]
    scored = _scored(record, result)
    test, on = scored.get("test"), scored.get("dataset", {}).get("name")
    if test and on:
        metrics = [
            {"type": score, "value": test[score], "name": f"test {score.upper()}"}
            for score in ("mse", "mae")
        ]
        task = {"type": "time-series-forecasting", "name": "Time series forecasting"}
        dataset = {"type": on, "name": on, "split": "test"}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        header["model-index"] = [{"name": name, "results": results}]
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _summary(record: Mapping[str, Any], trained: Trained) -> str:
    arguments = record["network"]["arguments"]
    activation = arguments.get("value_activation")
    path = f" with the value activation `{activation}`" if activation else ""
    return (
        f"A {record['network']['class']}{path} of the library tsattn. It looks at the last "
        f"{trained.context} rows of each {trained.kind} and forecasts the next {trained.horizon}, "
        f"{step_text(trained.step)} apart, in the data's own units."
    )


def _loading(name: str, onnx: Mapping[str, Any] | None) -> str:
    folder = re.sub(r"[^\w.-]", "_", name)
    text = (
        "```python\nimport pandas as pd\nfrom tsattn import Forecaster\n"
        f'forecast = Forecaster.load("{folder}").predict(pd.read_csv("new.csv"))\n```\n\n'
        f"Or `tsattn forecast --ckpt {folder} --data new.csv --out forecast.csv`. No training data "
        "are needed, and nothing in this folder is executed: weights are safetensors, everything "
        "else is JSON, and lengths and checksums are compared first."
    )
    if not onnx:
        return text
    rows = [
        f"| {way} | `{one}` | {_cell(what)} |"
        for way in ("inputs", "outputs")
        for one, what in onnx[way].items()
    ]
    batches = ", ".join(map(str, onnx["batches"]))
    return (
        f"{text}\n\n`model.onnx` (opset {onnx['opset']}, any number of windows) takes and returns "
        f"numbers in {onnx['units']}; the order of channels and series is that of `record.json`. "
        f"In onnxruntime {onnx['versions']['onnxruntime']} it was at most "
        f"{onnx['largest_difference']:.1e} standard deviations from the network, over batches of "
        f"{batches} windows.\n\n| | tensor | type and shape |\n|---|---|---|\n" + "\n".join(rows)
    )


def _covariates(trained: Trained) -> str:
    if trained.covariates is None:
        return "none"
    names = trained.covariates.names
    kinds = {"known ahead": names.known, "calendar": names.calendar}
    kinds |= {"past": names.past, "static": names.static}
    return "; ".join(f"{kind}: {', '.join(map(_cell, one))}" for kind, one in kinds.items() if one)


def _data(record: Mapping[str, Any], trained: Trained, result: Mapping[str, Any] | None) -> str:
    data = record["data"]
    dataset = (result or {}).get("dataset", {})
    names = listed(trained.names, _cell, most=_SHOWN)
    plural = "channels" if trained.layout == "wide" else "series"
    rows = [
        ("name", _cell(data.get("name", "unknown"))),
        ("sha256 of the file", f"`{data.get('sha256', 'unknown')}`"),
        ("rows", dataset.get("rows", "not recorded")),
        (plural, f"{len(trained.names)}: {names}"),
        ("step", step_text(trained.step)),
        ("season", f"{trained.season} rows"),
        ("calendar features", ", ".join(trained.calendar) or "none"),
        ("covariates", _covariates(trained)),
        ("context and horizon", f"{trained.context} and {trained.horizon} rows"),
    ]
    borders = dataset.get("borders", {})
    if len(borders) == 1:
        (parts,) = borders.values()
        cut = ", ".join(f"{part} {first} to {last}" for part, (first, last) in parts.items())
        rows.append(("rows of the parts, context included", cut))
    rows += [("note", _cell(note)) for note in data.get("notes", ())]
    return _table(("", ""), rows)


def _scores(record: Mapping[str, Any], trained: Trained, result: Mapping[str, Any] | None) -> str:
    scored = _scored(record, result)
    test = scored.get("test")
    if not test:
        return (
            "None are known: this was exported from a checkpoint without its run folder. Score it "
            "on known rows with `tsattn backtest`."
        )
    who = "the validated run, test" if _refit(record) else "this network, test"
    rows = [(who, f"{test['mse']:.4g}", f"{test['mae']:.4g}")]
    for key, title in _FLOORS.items():
        floor = scored.get("floors", {}).get(key)
        if floor:
            rows.append((f"floor: {title}", f"{floor['mse']:.4g}", f"{floor['mae']:.4g}"))
    rule = scored.get("checkpoint_rule", "lowest validation loss")
    text = _table(("", "MSE", "MAE"), rows) + "\n\n" + _PROTOCOL.format(rule=rule)
    text += f" {test['windows_scored']} windows were scored"
    dropped = test.get("windows_dropped", 0)
    text += f", {dropped} left out by the run's limits." if dropped else "."
    dataset = scored.get("dataset", {})
    if dataset and dataset.get("sha256") != record["data"].get("sha256"):
        text += f" They are of {_cell(dataset.get('name'))} (sha256 `{dataset.get('sha256')}`), "
        text += "the file of the validated run, and not of the file above."
    return f"{text} {_intervals(record, trained)}".rstrip()


def _intervals(record: Mapping[str, Any], trained: Trained) -> str:
    """Return which intervals the checkpoint can give, and for whom it has none."""
    if record.get(RECORD_KEY) is None:
        return ""
    calibration = Calibration.of(record[RECORD_KEY])
    finite_LK = calibration.finite_levels
    has_K = finite_LK.any(dim=0)
    if not has_K.any():
        return "There were too few validation windows for intervals of any level."
    high = calibration.levels[int(finite_LK[:, has_K].all(dim=1).nonzero().max())]
    windows = min(count for count, has in zip(calibration.windows, has_K, strict=True) if has)
    text = (
        f"Split-conformal intervals of {calibration.levels[0]:g} to {high:g} percent come from the "
        f"residuals of {windows} validation windows."
    )
    without = without_intervals(calibration, trained.names)
    if without:
        shown = listed(without, _cell, most=_SHOWN)
        text += f" Of too few validation windows, and so without intervals: {shown}."
    return text


def _refitted(record: Mapping[str, Any]) -> list[str]:
    """Return what to say of a network that was trained once more on all rows."""
    refit = _refit(record)
    if not refit:
        return []
    return [
        "## Refitted\n\nThese weights are not those that were scored: they were trained once more "
        f"on all rows, for the {refit.get('epochs')} epochs after which the validated run had its "
        "lowest validation loss, and no rows are left to validate or test them. The scores above, "
        "and the residuals of intervals, are those of the validated run."
    ]


def _refit(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    refit = record.get("refit")
    return refit if isinstance(refit, Mapping) else None


def _scored(record: Mapping[str, Any], result: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the result that scores are of: the run's, or that of the run a refit stands on."""
    refit = _refit(record)
    if refit is None:
        return result or {}
    told = {"test": refit.get("validated_test"), "dataset": refit.get("validated_data") or {}}
    return told | dict((result or {}).get("validated", {}))


def _recipe(record: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    said: dict[str, Any] = {
        "network": record["network"],
        "training": (result or {}).get("training", record.get("training") or {}),
        "data": {key: record["data"].get(key) for key in ("context", "horizon", "calendar")},
    }
    if result:
        said["seed"] = result.get("seed")
        said["epochs"] = {"run": result.get("epochs"), "best": result.get("best_epoch")}
        said["limits"] = _scored(record, result).get("limits") or None
        said["files"] = [Path(str(one)).name for one in result.get("recipes", ())]
    return f"```yaml\n{yaml.safe_dump(_plain(said), sort_keys=False)}```"


def _machine(result: Mapping[str, Any] | None) -> str:
    if not result:
        return "Not known: exported from a checkpoint without its run folder."
    versions = ", ".join(f"{name} {one}" for name, one in result.get("versions", {}).items())
    rows = [
        ("device", _cell(result.get("device"))),
        ("threads", result.get("threads")),
        ("precision", result.get("precision")),
        ("attention computed by", result.get("attention") or "no attention"),
        ("training time", f"{result.get('wall_seconds')} s"),
        ("parameters", result.get("parameters")),
        ("versions", versions),
        ("commit of tsattn", result.get("commit") or "an installed release"),
    ]
    return _table(("", ""), rows)


def _limits(record: Mapping[str, Any], trained: Trained, result: Mapping[str, Any] | None) -> str:
    plural = "channels" if trained.layout == "wide" else "series"
    lines = [
        f"Trained on the {plural} above and no others; series it never saw were not tested.",
        "Scored on the rows right after the training and validation rows. How the error grows as "
        "time goes on, or after the data change their nature, was not tested.",
        f"Made for rows that are {step_text(trained.step)} apart; another step is refused.",
        "Not tested with missing or wrong values among the rows that it looks at, nor on "
        "other hardware than the machine above.",
        "One run with one seed: another seed gives other weights and other scores.",
        "No licence of the weights was chosen here; that of the data may bind them.",
    ]
    if not isinstance(record.get(RECORD_KEY), Mapping) and not record["network"]["arguments"].get(
        "quantiles"
    ):
        lines.insert(2, "Point forecasts only: neither quantiles nor intervals.")
    if _scored(record, result).get("limits"):
        lines.insert(0, "The training was cut short by limits, see the recipe: for a trial only.")
    return "\n".join(f"- {line}" for line in lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def _cell(value: object) -> str:
    """Return text that stays within its cell and is nothing but text."""
    text = re.sub(r"\s+", " ", str(value)).strip()
    return re.sub(r"([\\`*_{}\[\]<>|#$~])", r"\\\1", text)


def _plain(value: Any) -> Any:
    """Return a copy without tuples and without what YAML has no word for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
