"""What a study has found: the best settings, what mattered, and how sure that is."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from tsattn.tune.claims import SEED, first_of
from tsattn.tune.repeats import CONFIDENCE, Comparison, Ranking, contenders, rank
from tsattn.tune.search import BEST_EPOCH, CONFIG, EPOCHS, ERROR, SECONDS
from tsattn.tune.space import Space
from tsattn.tune.storage import quiet

OBJECTIVE = "best validation loss over the epochs; no test window was scored"
_CAUTION = (
    "One seed cannot tell activations apart: the distribution shows what the search has met, not "
    "what an activation is worth. --repeat-seeds 5 trains the best settings of each again."
)


def summarise(study: Study, space: Space, compared: Sequence[Comparison]) -> dict[str, Any]:
    """Return everything that was found, ready for ``summary.json``.

    Args:
        study: the study.
        space: its space.
        compared: the repeats, if there were any.
    """
    trials = study.get_trials(deepcopy=False)
    whole = _in(trials, TrialState.COMPLETE)
    ranking = rank({comparison.contender: comparison.losses for comparison in compared})
    best, because = _chosen(whole, ranking)
    return {
        "study": study.study_name,
        "objective": OBJECTIVE,
        "trials": {state.name.lower(): len(_in(trials, state)) for state in TrialState},
        "seconds": round(sum(t.user_attrs.get(SECONDS, 0.0) for t in trials), 1),
        "epochs": sum(t.user_attrs.get(EPOCHS, 0) for t in trials),
        "best": {**_described(best), "because": because} if best else None,
        "importance": importance(study, whole),
        "distribution": {
            p.name: _distribution(trials, p.name) for p in space.parameters if p.choices
        },
        "repeats": [_repeated(comparison, ranking) for comparison in compared],
        "ranking": _explained(ranking, compared, _unrepeated(study, space, compared)),
        "failed": [_failed(trial) for trial in _in(trials, TrialState.FAIL)],
    }


def importance(study: Study, whole: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """Return each parameter's share of what makes trials good (PED-ANOVA), or None.

    Source: Watanabe et al., PED-ANOVA: efficiently quantifying hyperparameter importance in
    arbitrary subspaces, 2023, as in Optuna.
    """
    if len(whole) < 2 or len({trial.values[0] for trial in whole}) < 2:
        return None
    with quiet():
        return dict(optuna.importance.get_param_importances(study))


def best_recipe(study: Study, best: Mapping[str, Any]) -> str:
    """Return the recipe of the best trial, with where it comes from in its first lines.

    Args:
        study: the study.
        best: what the summary says of it.
    """
    recipe = study.get_trials(deepcopy=False)[best["trial"]].user_attrs[CONFIG]
    first, _, rest = recipe.partition("\n")
    values = json.dumps(best["values"], ensure_ascii=False)
    return (
        f"{first}\n# trial {best['trial']} of the study {study.study_name}, {best['because']}: "
        f"{values}, validation loss {best['validation_loss']:.6g}\n{rest}"
    )


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print what was found."""
    counts = summary["trials"]
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(f"study {summary['study']}: {said}; {summary['epochs']} epochs")
    if summary["best"] is None:
        return
    console.print(_best_table(summary["best"]))
    if len(summary["importance"] or ()) > 1:  # a single one has it all
        table = Table("parameter", "importance", title="What mattered (PED-ANOVA)")
        for name, share in summary["importance"].items():
            table.add_row(name, f"{share:.3f}")
        console.print(table)
    for name, rows in summary["distribution"].items():
        console.print(_distribution_table(name, rows))
    if summary["repeats"]:
        console.print(_repeats_table(summary["repeats"]))
        if summary["ranking"]:
            console.print(summary["ranking"])
    else:
        console.print(_CAUTION)


def _in(trials: Sequence[FrozenTrial], state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == state]


def _chosen(whole: Sequence[FrozenTrial], ranking: Ranking) -> tuple[FrozenTrial | None, str]:
    """Return the best trial, and by what: its mean over the repeats where they can be ranked."""
    if not whole:
        return None, ""
    if not ranking.means:
        return min(whole, key=lambda trial: trial.values[0]), "the lowest validation loss"
    lowest = next(iter(ranking.means))
    (best,) = [trial for trial in whole if trial.number == lowest.number]
    return best, f"the lowest mean over {len(ranking.seeds)} seeds"


def _unrepeated(study: Study, space: Space, compared: Sequence[Comparison]) -> list[str]:
    """Name the trials that would be repeated now, and have no finished repeat."""
    repeated = {comparison.contender.number for comparison in compared}
    left = [c for c in contenders(study, space) if c.number not in repeated]
    return [c.label if space.compared is None else f"{c.label} (trial {c.number})" for c in left]


def _explained(
    ranking: Ranking, compared: Sequence[Comparison], unrepeated: Sequence[str]
) -> str | None:
    """Say how the best was chosen where some repeats lack; None where none does."""
    if not compared:
        return None
    told = _unfinished(ranking, compared)
    if unrepeated:
        told.append(
            "Left out, the best of the search with fewer than two finished repeats: "
            f"{', '.join(unrepeated)}; --repeat-seeds 2 and more trains them again (with "
            "--retry-failed, also what has failed)."
        )
    return " ".join(told) or None


def _unfinished(ranking: Ranking, compared: Sequence[Comparison]) -> list[str]:
    seeds = {seed for comparison in compared for seed in comparison.losses}
    if len(seeds) < 2 or all(len(comparison.losses) == len(seeds) for comparison in compared):
        return []
    if not ranking.means:
        return [
            "Some repeats have failed or are not finished: fewer than two seeds are finished by "
            "all settings, so the best is that of the search."
        ]
    means = ", ".join(f"{c.label} {mean:.4f}" for c, mean in ranking.means.items())
    out = [c.contender.label for c in compared if c.contender not in ranking.means]
    left = f"; left out, with fewer than two: {', '.join(out)}" if out else ""
    return [
        f"Some repeats have failed or are not finished: the best has the lowest mean over those "
        f"{len(ranking.seeds)} of {len(seeds)} seeds that all have finished: {means}{left}."
    ]


def _described(trial: FrozenTrial) -> dict[str, Any]:
    kept = (SEED, EPOCHS, BEST_EPOCH, SECONDS)
    return {
        "trial": trial.number,
        "validation_loss": trial.values[0],
        "values": trial.params,
        **{name: trial.user_attrs.get(name) for name in kept},
    }


def _distribution(trials: Sequence[FrozenTrial], name: str) -> dict[str, dict[str, Any]]:
    """Return how the trials of each choice ended, and the losses of the whole ones."""
    rows: dict[str, dict[str, Any]] = {}
    for choice in dict.fromkeys(str(t.params[name]) for t in trials if name in t.params):
        mine = [trial for trial in trials if str(trial.params.get(name)) == choice]
        losses = sorted(trial.values[0] for trial in _in(mine, TrialState.COMPLETE))
        quartiles = np.quantile(losses, (0.25, 0.5, 0.75)).tolist() if losses else [None] * 3
        rows[choice] = {
            "complete": len(losses),
            "pruned": len(_in(mine, TrialState.PRUNED)),
            "failed": len(_in(mine, TrialState.FAIL)),
            "best": losses[0] if losses else None,
            **dict(zip(("quarter", "median", "three_quarters"), quartiles, strict=True)),
            "losses": losses,
        }
    return dict(sorted(rows.items(), key=lambda row: row[1]["best"] or float("inf")))


def _repeated(comparison: Comparison, ranking: Ranking) -> dict[str, Any]:
    losses, paired = list(comparison.losses.values()), list(comparison.differences.values())
    return {
        "choice": comparison.contender.label,
        "trial": comparison.contender.number,
        "losses": {str(seed): loss for seed, loss in comparison.losses.items()},
        "mean": comparison.mean,
        "shared_mean": ranking.means.get(comparison.contender),
        "deviation": statistics.stdev(losses) if len(losses) > 1 else None,
        "is_reference": comparison.is_reference,
        "difference": statistics.fmean(paired) if paired else None,
        "pairs": len(paired),
        "low": comparison.low,
        "high": comparison.high,
        "verdict": comparison.verdict if paired else None,
    }


def _failed(trial: FrozenTrial) -> dict[str, Any]:
    reason = trial.user_attrs.get(ERROR, "its command was ended")
    return {"trial": trial.number, "of": first_of(trial), "values": trial.params, "reason": reason}


def _best_table(best: Mapping[str, Any]) -> Table:
    table = Table("setting", "value", title=f"Best: trial {best['trial']}, {best['because']}")
    table.add_row("best validation loss", f"{best['validation_loss']:.4f}", style="bold")
    for name, value in best["values"].items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    table.add_row("seed", str(best[SEED]))
    table.add_row("epoch", f"{best[BEST_EPOCH]} of {best[EPOCHS]}")
    return table


def _distribution_table(name: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title=f"Validation loss by {name}, whole trials")
    for column in (name, "whole", "stopped", "failed", "best", "median", "quartiles"):
        table.add_column(column, justify="left" if column == name else "right")
    for choice, row in rows.items():
        ends = (row["quarter"], row["three_quarters"])
        table.add_row(
            choice,
            *(str(row[count]) for count in ("complete", "pruned", "failed")),
            *(_number(row[value]) for value in ("best", "median")),
            "-" if ends[0] is None else f"{_number(ends[0])} to {_number(ends[1])}",
        )
    return table


def _repeats_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title=f"The best settings of each again, paired by seed, {CONFIDENCE:.0%} interval"
    )
    for column in (
        "choice",
        "of trial",
        "seeds",
        "mean",
        "deviation",
        "difference",
        "interval",
        "",
    ):
        table.add_column(column, justify="left" if column in ("choice", "") else "right")
    for row in sorted(rows, key=_place):
        known = row["low"] is not None
        table.add_row(
            row["choice"],
            str(row["trial"]),
            str(len(row["losses"])),
            _number(row["mean"]),
            _number(row["deviation"]),
            _number(row["difference"], "+"),
            f"{row['low']:+.4f} to {row['high']:+.4f}" if known else "-",
            "reference" if row["is_reference"] else row["verdict"] or "-",
        )
    return table


def _place(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Return what rows of repeats are sorted by: the mean that ranks them, then any."""
    shared = row["shared_mean"]
    return shared is None, row["mean"] if shared is None else shared


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"
