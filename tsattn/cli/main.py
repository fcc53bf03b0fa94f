"""Dispatch: which words lead where, and how an error reaches a person."""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from tsattn import __version__
from tsattn.errors import TsattnError
from tsattn.options import CommandParser, unknown_word

_TRAINING = ("fit", "validate", "test")
_BENCHES = (
    *("kernels", "auto", "train", "moe", "memory", "forecast"),
    *("run", "plan", "uncertainty"),
)
_USAGE = f"""\
tsattn {__version__}: long-horizon forecasting with active attention

  tsattn fit       train on a dataset or your own CSV, then score the best checkpoint
  tsattn test      score a checkpoint on every test window
  tsattn validate  score a checkpoint on every validation window
  tsattn forecast  forecast new data from a checkpoint, in their own units
  tsattn backtest  forecast the end of known data, window by window, and score that
  tsattn calibrate RUN: keep what intervals need in a run trained without it
  tsattn refit     RUN: train once more on all rows, for forecasts from now on
  tsattn export    a run as a folder to give away: safetensors, JSON, model card, ONNX
  tsattn data      list | fetch | verify | describe datasets
  tsattn tune      search for settings, above all the value activation, by validation loss
  tsattn moe       report: a page on what a run's mixtures of experts did
  tsattn bench     kernels | auto | train | moe | memory | forecast: speed and memory beside
                   what people use today; run | plan: fill a table of many runs;
                   uncertainty: coverage of intervals
  tsattn leaderboard   render Table 2 from results/; verify scores kept checkpoints anew
  tsattn compare   paired test of runs on the same windows
  tsattn doctor    what this machine can run, and what is missing

  tsattn fit --data.dataset own.csv
  tsattn fit --config configs/patchtst/etth1.yaml --model.network.value_activation tanh
  tsattn forecast --ckpt RUN --data new.csv --out forecast.csv

Add --help to any of them. TSATTN_DEBUG=1 shows where an error came from.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``tsattn`` and return its exit status: 0 done, 1 an error, 2 a misuse.

    Args:
        arguments: the words after ``tsattn``; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_USAGE)
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        print(f"tsattn {__version__}")
        return 0
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        how = "; go on with --ckpt_path last" if words[0] in ("fit", "refit") else ""
        print(f"\ninterrupted{how}", file=sys.stderr)
        return 130
    except (TsattnError, ValueError, OSError) as error:
        if os.environ.get("TSATTN_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def _dispatch(words: list[str]) -> int:
    command, rest = words[0], words[1:]
    if command in _TRAINING:
        return _train(words)
    if command in _COMMANDS:
        return _COMMANDS[command](rest)
    near = get_close_matches(command, [*_TRAINING, *_COMMANDS], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    print(f"unknown command {command!r}{hint}\n\n{_USAGE}", file=sys.stderr)
    return 2


def _train(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.training.command import run

    run(words)
    return 0


def _bench(words: list[str]) -> int:
    if not words or (words[0] not in _BENCHES and not words[0].startswith("-")):
        known = f"expected one of {', '.join(_BENCHES)}"
        print(f"error: {unknown_word(words[0], _BENCHES) if words else known}", file=sys.stderr)
        print("all options: tsattn bench --help", file=sys.stderr)
        return 2
    if words[:1] in (["run"], ["plan"]):
        from tsattn.bench.grid.command import grid_command

        return grid_command(words)
    _quieten_libraries()
    if words[:1] == ["uncertainty"]:
        from tsattn.bench.uncertainty import uncertainty

        return uncertainty(words[1:])
    from tsattn.bench.command import bench

    return bench(words)


def _tune(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.tune.command import tune

    return tune(words)


def _leaderboard(words: list[str]) -> int:
    if words and not words[0].startswith("-"):  # scores something
        _quieten_libraries()
    from tsattn.bench.leaderboard.command import leaderboard

    return leaderboard(words)


def _compare(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.bench.compare.command import compare

    return compare(words)


def _doctor(words: list[str]) -> int:
    from tsattn.cli.doctor import doctor

    parser = CommandParser(prog="tsattn doctor", description=_purpose(doctor))
    parser.add_argument(
        "--build", action="store_true", help="build the CPU kernels now, even if that failed"
    )
    return doctor(build=parser.parse_args(words).build)


def _forecast(words: list[str]) -> int:
    from tsattn.cli.forecast import forecast

    return forecast(words)


def _backtest(words: list[str]) -> int:
    if "--refit" in words:
        _quieten_libraries()
    from tsattn.cli.forecast import backtest

    return backtest(words)


def _export(words: list[str]) -> int:
    from tsattn.cli.export import export

    return export(words)


def _calibrate(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.cli.calibrate import calibrate

    return calibrate(words)


def _refit(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.cli.refit import refit

    return refit(words)


def _data(words: list[str]) -> int:
    from tsattn.cli import data

    functions = {
        "list": data.list_datasets,
        "fetch": data.fetch,
        "verify": data.verify,
        "describe": data.describe,
    }
    about = "Datasets of the catalog, and your own files."
    parser = CommandParser(prog="tsattn data", description=about)
    commands = parser.add_subcommands()
    for name, function in functions.items():
        command = CommandParser()
        if name in ("fetch", "verify"):
            several = "+" if name == "fetch" else "*"
            command.add_argument("names", nargs=several, help="datasets of the catalog, or all")
        command.add_function_arguments(function, skip={"names"}, as_positional=True)
        commands.add_subcommand(name, command, help=_purpose(function))
    given = parser.parse_args(words)
    return functions[given.subcommand](**given[given.subcommand].as_dict())


def _moe(words: list[str]) -> int:
    _quieten_libraries()
    from tsattn.cli.moe import report

    parser = CommandParser(prog="tsattn moe", description="What mixtures of experts did.")
    commands = parser.add_subcommands()
    command = CommandParser()
    command.add_function_arguments(report, skip={"overwrite"}, as_positional=True)
    command.add_argument("--overwrite", action="store_true", help="replace an existing page")
    commands.add_subcommand("report", command, help=_purpose(report))
    return report(**parser.parse_args(words).report.as_dict())


def _purpose(function: Callable[..., int]) -> str:
    """Return the first paragraph of what a function says about itself."""
    return (inspect.getdoc(function) or "").partition("\n\n")[0]


def _quieten_libraries() -> None:
    """Leave out what libraries say about themselves; their warnings about the run stay."""
    import lightning.pytorch  # noqa: F401 (sets its own levels when it is imported)

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")


# each is called with the words after it
_COMMANDS: Mapping[str, Callable[[list[str]], int]] = {
    "backtest": _backtest,
    "bench": _bench,
    "calibrate": _calibrate,
    "compare": _compare,
    "data": _data,
    "doctor": _doctor,
    "export": _export,
    "forecast": _forecast,
    "leaderboard": _leaderboard,
    "moe": _moe,
    "refit": _refit,
    "tune": _tune,
}
