"""What is compared: words of the command line become sets of runs on the same windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsattn.bench.compare.errors import ErrorsOfRun, errors_of
from tsattn.bench.leaderboard.kept_rows import checkpoint_of, matching, read_all
from tsattn.bench.opened import Opened, open_kept, open_run, require_same_data
from tsattn.data.targets import target_rows
from tsattn.errors import ConfigError, DataError
from tsattn.training.datamodule import ForecastData


@dataclass(frozen=True, eq=False)
class Side:
    """A run, or a set of runs that differ in their seeds.

    Attributes:
        name: how it is called in tables and pictures.
        runs: the runs, opened.
    """

    name: str
    runs: tuple[Opened, ...]


@dataclass(frozen=True, eq=False)
class Scored:
    """A side whose test windows were scored.

    Attributes:
        name: how it is called.
        errors: of every run, by seed; a single run without a seed is under None.
    """

    name: str
    errors: dict[int | None, ErrorsOfRun]


def open_sides(words: Sequence[str], results: Path, root: Path | None = None) -> list[Side]:
    """Open what words name.

    Args:
        words: each ``[NAME=]RUN[,RUN...]``; a run is a run folder, or parts of the key of rows of
            results whose checkpoints are kept, such as ``patchtst/illness/tanh``: all its seeds.
        results: folder of the rows.
        root: folder that is searched first for the data.

    Raises:
        ConfigError: fewer than two sides, names twice, seeds twice, or a run that is not there.
        DataError: the sides are not scored on the same windows.
    """
    if len(words) < 2:
        raise ConfigError(
            f"tsattn compare needs two runs or sets of runs at least, got {len(words)}; the first "
            "is the one that the others are compared with"
        )
    sides = [_side(word, results, root) for word in words]
    for name in (side.name for side in sides):
        if [side.name for side in sides].count(name) > 1:
            raise ConfigError(f"two sides are called {name!r}; name them: first=RUN second=RUN")
    first = sides[0].runs[0]
    for run in (run for side in sides for run in side.runs):
        require_same_windows(first, run)
    return sides


def score(side: Side) -> Scored:
    """Score all test windows of every run of a side."""
    return Scored(side.name, {run.seed: errors_of(run) for run in side.runs})


def require_same_windows(first: Opened, other: Opened) -> None:
    """Refuse runs that do not forecast the same numbers; contexts may differ.

    Raises:
        DataError: other data, horizon, channels, test rows, observed targets or scaling, by name
            and number.
    """
    a, b = first.data, other.data
    try:
        require_same_data(b, a.prepared.panel.sha256, first.name)
    except DataError as error:
        raise _different(first, other, _files(a, b)) from error
    if a.horizon != b.horizon:
        raise _different(first, other, f"horizon {a.horizon} and {b.horizon}")
    names = [list(data.prepared.panel.channels) for data in (a, b)]
    if names[0] != names[1]:
        raise _different(first, other, f"channels {names[0]} and {names[1]}")
    rows = [_targets(data) for data in (a, b)]
    if not np.array_equal(rows[0], rows[1]):
        first_rows = [f"{len(r)} windows with targets from row {r[0]}" for r in rows]
        raise _different(first, other, " and ".join(first_rows))
    if not np.array_equal(_observed(a), _observed(b)):
        raise _different(first, other, "targets that were observed in one of them only")
    scalers = [data.prepared.scaler for data in (a, b)]
    same = all(
        np.allclose(getattr(scalers[0], name), getattr(scalers[1], name), rtol=1e-6)
        for name in ("mean_SC", "scale_SC")
    )
    if not same:
        raise _different(first, other, "scalers that were fitted on different rows")


def _targets(data: ForecastData) -> np.ndarray:
    """Return the row at which the horizon of every test window begins."""
    return (data.prepared.test.starts_W + data.context).numpy()


def _observed(data: ForecastData) -> np.ndarray:
    """Return which values of the rows that test windows forecast were observed."""
    windows = data.prepared.test
    rows = target_rows(windows)
    if windows.observed_RC is None:
        return np.ones((int(rows.sum()), windows.values_RC.shape[1]), dtype=bool)
    return windows.observed_RC[rows].numpy()


def _files(a: ForecastData, b: ForecastData) -> str:
    """Name two sets of data; files of one name can be had from one folder."""
    panels = [data.prepared.panel for data in (a, b)]
    if panels[0].name != panels[1].name:
        return f"data {panels[0].name} and {panels[1].name}"
    files = " and ".join(f"{panel.path} (sha256 {panel.sha256[:12]})" for panel in panels)
    return f"data {files}; if --root names a folder, both are read from there"


def _different(first: Opened, other: Opened, what: str) -> DataError:
    return DataError(
        f"{first.name} and {other.name} are not scored on the same windows: {what}; a paired "
        "comparison needs the same data, borders and horizon"
    )


def _side(word: str, results: Path, root: Path | None) -> Side:
    name, equals, rest = word.partition("=")
    if not equals or Path(word).is_dir():
        name, rest = "", word
    parts = [part for part in rest.split(",") if part]
    if not parts:
        raise ConfigError(f"{word!r} names no run; expected NAME=RUN or NAME=RUN,RUN")
    runs = tuple(run for part in parts for run in _open(part, results, root))
    seeds = [run.seed for run in runs]
    twice = sorted({str(seed) for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ConfigError(
            f"{word!r} holds several runs with seed {', '.join(twice)}; a set has one run a seed: "
            "give them as sides of their own, or name them more closely"
        )
    return Side(name or rest, runs)


def _open(part: str, results: Path, root: Path | None) -> list[Opened]:
    if Path(part).is_dir():
        return [open_run(Path(part), root)]
    if not results.is_dir():
        raise ConfigError(f"no run folder {part}, and no folder {results} with rows of results")
    try:
        rows = [row for row in matching(read_all(results), part) if row.checkpoint]
    except ConfigError as error:
        raise ConfigError(f"no run folder {part}; {error}") from error
    if not rows:
        raise ConfigError(f"no row of {part!r} has a kept checkpoint in {results}")
    return [open_kept(checkpoint_of(row, results), row.precision, root) for row in rows]
